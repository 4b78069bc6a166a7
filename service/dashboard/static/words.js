/** What the API's terms are called on the page. */
import { formatBytes, formatCount, formatMacs, formatPercent } from "./format.js";

export const STAGES = [
  { id: "ingest", name: "Ingest", doing: "Every image is decoded once." },
  { id: "adapt", name: "Adapt", doing: "A supernet is chosen, and all of it adapted to your images." },
  { id: "search", name: "Search", doing: "Subnets within the limit are scored." },
  {
    id: "train",
    name: "Train",
    doing: "The chosen network's memory is measured; then it is trained as the device would.",
  },
  { id: "export", name: "Export", doing: "The test images are looked at for the first time." },
];

export const STATUSES = ["queued", "running", "paused", "succeeded", "failed", "cancelled"];

export const METHODS = {
  auto: "biases, and lite residual modules where they are worth their memory",
  "lite_residual+bias": "biases and lite residual modules",
  lite_residual: "lite residual modules",
  bias: "biases",
  head: "the classifier alone",
  "norm+head": "scales and shifts of the norms",
  full: "everything",
};

/** How candidates are proposed. */
export const SAMPLERS = {
  predictor: "an accuracy predictor over many priced candidates",
  tpe: "tree-structured Parzen estimator",
  nsga2: "genetic algorithm NSGA-II",
  gp: "Gaussian process",
  random: "at random",
};

/** How often images of rare classes are looked at. */
export const CLASS_WEIGHTS = {
  auto: "as often where classes are uneven",
  balanced: "as often",
  none: "as they come",
};

export const OUTCOMES = {
  succeeded: "finished the job",
  failed: "failed",
  cancelled: "cancelled",
  paused: "paused",
  released: "its worker was stopped; the job went back to the queue",
  lost: "its worker or process died",
};

/** The parts of a peak, in the order in which they are drawn. */
export const MEMORY_PARTS = [
  ["program", "Program: frozen weights and operations"],
  ["frozen_weights", "Frozen weights"],
  ["trained_values", "Trained values"],
  ["optimizer_state", "Optimizer state"],
  ["gradients", "Gradients"],
  ["kept_activations", "Activations kept for backward"],
  ["passing_activations", "Activations in passing"],
  ["workspace", "Inside operators"],
  ["batch", "The batch"],
  ["small_tensors", "Small tensors"],
  ["step", "Activations, gradients, temporaries"],
  ["trainer", "Trainer, stack, C library"],
];

/** What a peak is that of, to follow its name. */
export const peakOf = (meaning) =>
  meaning === "process" ? "the whole process on the device" : "torch's allocator";

/** Which trainer made the checkpoint. */
export const trainerName = (trainer) =>
  trainer === "native" ? "the device trainer" : "the torch engine";

export const isFinal = (status) => ["succeeded", "failed", "cancelled"].includes(status);

export const capitalized = (text) => text.charAt(0).toUpperCase() + text.slice(1);

/** The status in a word, with what its worker has yet to do. */
export function statusWord(job) {
  if (job.stop_request === "cancel") return "cancelling";
  if (job.stop_request === "pause") return "pausing";
  return job.status;
}

/** What an event tells, as a sentence. */
export function eventSentence({ kind, detail, attempt }) {
  const tell = SENTENCES[kind];
  return tell ? tell(detail, attempt) : `${kind}: ${JSON.stringify(detail)}`;
}

const STATUS_SENTENCES = {
  queued: () => "Waits in the queue.",
  running: ({ worker }, attempt) =>
    `${attempt > 1 ? `Attempt ${attempt} begins` : "Begins"}${worker ? ` on ${worker}` : ""}.`,
  paused: () => "Paused.",
  succeeded: () => "Finished: the checkpoint is ready.",
  failed: ({ error }) => `Failed: ${error ?? "no reason is known"}`,
  cancelled: () => "Cancelled.",
};

const SENTENCES = {
  status: (detail, attempt) => STATUS_SENTENCES[detail.status]?.(detail, attempt) ?? detail.status,
  request: ({ request }) =>
    request ? `Its worker is asked to ${request}.` : "Its worker is no longer asked to stop.",
  stage: ({ stage }) => {
    const known = STAGES.find(({ id }) => id === stage);
    return known
      ? `${known.name}: ${known.doing.charAt(0).toLowerCase()}${known.doing.slice(1)}`
      : stage;
  },
  trial: (trial) => {
    const share = formatPercent(trial.validation_accuracy);
    const score =
      trial.is_complete === false
        ? `given up after ${formatCount(trial.num_images, "image")}, ${share} of them right,`
        : `${share} of the validation images`;
    const macs = trial.macs ? `, ${formatMacs(trial.macs)} multiply-accumulates` : "";
    return (
      `Trial ${trial.number + 1}${trial.reused ? ", of an earlier job" : ""}: ${score} at ` +
      `${trial.resolution}\u00a0px, ${formatBytes(trial.predicted_peak_bytes)} predicted${macs}.`
    );
  },
  epoch: (epoch) => {
    const training = epoch.training === "head_only" ? "Head-only training, epoch" : "Epoch";
    const accuracy =
      epoch.val_accuracy === null
        ? ""
        : `${formatPercent(epoch.val_accuracy)} of the validation images, `;
    return (
      `${training} ${epoch.epoch + 1} of ${epoch.num_epochs}: ${accuracy}` +
      `training loss ${epoch.train_loss.toFixed(3)}.`
    );
  },
  log: ({ message }) => `${capitalized(message)}.`,
};

/** A training plan in words, as sentences. Each of the plan's stages has maps of one size: half
    the image's side in the first, and half of the one before in each other. */
export function planSentences(plan, resolution) {
  const sentences = [`${plan.batch_size} images an update.`];
  plan.stretches.forEach((stretch, index) => {
    const end = plan.stretches[index + 1]?.from_stage;
    const where = describeMaps(stretch.from_stage, end, resolution);
    const again = stretch.recomputes ? ", run again for backward" : "";
    sentences.push(`${where}: ${describePasses(stretch, plan.batch_size)}${again}.`);
  });
  if (plan.optimizer_bits !== 32) sentences.push(`Adam's moments in ${plan.optimizer_bits} bits.`);
  if (plan.trained_bits !== 32) sentences.push(`Trained weights in ${plan.trained_bits} bits.`);
  return sentences;
}

function describePasses({ micro_batch_size: size }, batchSize) {
  if (size === batchSize) return "the whole batch at once";
  return size === 1 ? "one image at a time" : `${size} images at a time`;
}

function describeMaps(start, end, resolution) {
  const side = (stage) => Math.ceil(resolution / 2 ** (stage + 1));
  if (end === undefined)
    return start === 0 ? "All layers" : `Maps of ${side(start)}\u00a0px and smaller`;
  const [largest, smallest] = [side(start), side(end - 1)];
  return `Maps of ${largest === smallest ? "" : `${largest} to `}${smallest}\u00a0px`;
}
