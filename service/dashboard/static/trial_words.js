/** What is told of one trial: beside its point, in tables, in the log. */
import { formatMacs, formatPeak, formatPercent, formatSpread, formatTimes } from "./format.js";
import { capitalized, planSentences } from "./words.js";

const WIDTH = 44;

export const isComplete = (trial) => trial.is_complete;

/** "61.0% ± 2.0": the accuracy of a trial, or a point of the front, and its standard error, where it is known. */
export const formatEstimate = ({ validation_accuracy: accuracy, standard_error: error }) =>
  formatPercent(accuracy) + (error === null ? "" : `\u00a0${formatSpread(error)}`);

export function noteOf(trial) {
  if (!isComplete(trial)) return `given up after ${trial.num_images} images`;
  return trial.reused ? "scored by an earlier job" : "";
}

/** "Trial 7, 48 px". */
export const titleOf = (trial) => `Trial ${trial.number + 1}, ${trial.resolution}\u00a0px`;

/** The lines of a point's tooltip. point: the trial's of the front, if it is on it. */
export function tooltip(trial, point) {
  const { lean_peak_bytes: lean, predicted_peak_bytes: tried } = trial;
  const [, ...steps] = planSentences(trial.lean_plan, trial.resolution);
  const lines = [
    `${formatEstimate(trial)} of the validation images`,
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
