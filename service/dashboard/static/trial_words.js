/** What is told of one trial: beside its point, in tables, in the log. */
import { formatMacs, formatPeak, formatPercent, formatSpread, formatTimes } from "./format.js";
import { capitalized, planSentences } from "./words.js";

const WIDTH = 44;

export const isComplete = (trial) => trial.is_complete;

/** "61.0% ± 2.0": an accuracy and its standard error, where it is known. */
export const formatEstimate = (accuracy, standardError) =>
  formatPercent(accuracy) + (standardError === null ? "" : `\u00a0${formatSpread(standardError)}`);

/** The standard error of a trial's accuracy, as the service has it of the front's points: with
    two images more of either kind (Agresti and Coull, The American Statistician 52, 1998).
    Null where the number of images is not known. */
export function standardError({ validation_accuracy: accuracy, num_images: count }) {
  if (count === null) return null;
  const share = (accuracy * count + 2) / (count + 4);
  return Math.sqrt((share * (1 - share)) / (count + 4));
}

export function noteOf(trial) {
  if (!isComplete(trial)) return `given up after ${trial.num_images} images`;
  return trial.reused ? "scored by an earlier job" : "";
}

/** "Trial 7, 48 px". */
export const titleOf = (trial) => `Trial ${trial.number + 1}, ${trial.resolution}\u00a0px`;

/** The lines of a point's tooltip. point: the trial's of the front, if it is on it. */
export function tooltip(trial, point) {
  const error = point ? point.standard_error : standardError(trial);
  const { lean_peak_bytes: lean, predicted_peak_bytes: tried } = trial;
  const [, ...steps] = planSentences(trial.lean_plan, trial.resolution);
  const lines = [
    `${formatEstimate(trial.validation_accuracy, error)} of the validation images`,
    lean === tried
      ? `${formatPeak(tried)} at its peak`
      : `${formatPeak(lean)} at least; fastest plan ${formatPeak(tried)}`,
  ];
  const note = noteOf(trial);
  if (note) lines.push(capitalized(note));
  if (trial.macs !== null) lines.push(`${formatMacs(trial.macs)} multiply-accumulates an image`);
  if (point) lines.push(`Leanest plan: ${formatTimes(point.slowdown)} the step time.`);
  return [...lines, ...steps].flatMap(wrapped);
}

/** A chart's tooltip wraps nothing by itself. */
function wrapped(line) {
  const lines = [""];
  for (const word of line.split(" ")) {
    const longer = lines.at(-1) === "" ? word : `${lines.at(-1)} ${word}`;
    if (longer.length > WIDTH && lines.at(-1) !== "") lines.push(word);
    else lines[lines.length - 1] = longer;
  }
  return lines;
}
