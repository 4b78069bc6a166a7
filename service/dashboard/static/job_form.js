/** A new job as the form holds it, as the API takes it, and as the API finds fault with it. */
import { formatNumber } from "./format.js";
import { capitalized } from "./words.js";

const WHOLE = /^\d+$/;
const NUMBER = /^\d*\.?\d+$/;

/** The form's values: those of the API's own document (openapi.json), or of a job to copy. */
export function initialValues(schemas, job) {
  const settings = properties(schemas.JobSettings);
  const request = properties(schemas.JobRequest);
  const from = job?.settings ?? {};
  const text = (name) => String(from[name] ?? settings[name].default ?? "");
  return {
    dataset: job?.dataset ?? "",
    name: job && !isNamedAfterId(job) ? job.name : "",
    device: from.device ?? "",
    memory_limit: job ? sizeText(job.memory_limit_bytes) : "",
    model_size_limit: sizeText(from.model_size_limit),
    inference_memory_limit: sizeText(from.inference_memory_limit),
    method: job?.method ?? request.method.default,
    supernet: job?.supernet ?? request.supernet.default,
    priority: job?.priority ?? request.priority.default,
    webhook: "",
    horizontal_flip: from.horizontal_flip ?? settings.horizontal_flip.default,
    race: from.race ?? settings.race.default,
    reuse: from.reuse ?? settings.reuse.default,
    refit: from.refit ?? settings.refit.default,
    sampler: from.sampler ?? settings.sampler.default,
    class_weights: from.class_weights ?? settings.class_weights.default,
    fit: from.fit ?? settings.fit.default,
    time_limit_seconds: durationText(from.time_limit_seconds),
    mac_limit: countText(from.mac_limit),
    resolutions: (from.resolutions ?? settings.resolutions.default ?? []).join(", "),
    ...Object.fromEntries(NUMBERS.map((name) => [name, text(name)])),
  };
}

/** As the server calls a job that was given no name. */
const isNamedAfterId = ({ id, name }) => name === `job ${id.slice(0, 8)}`;

/** Settings of the search and of the training that are one number each. */
export const SEARCH_NUMBERS = ["trials", "patience"];

export const TRAINING_NUMBERS = [
  "epochs",
  "adapt_steps",
  "batch_size",
  "learning_rate",
  "label_smoothing",
  "min_crop_scale",
  "seed",
];

const NUMBERS = [...SEARCH_NUMBERS, ...TRAINING_NUMBERS];

/** Settings that go as their text says, "10m" or "20M", and are left out where it is empty. */
export const AMOUNTS = ["time_limit_seconds", "mac_limit"];

/** Sizes that are bounded beside the memory of training. */
export const BOUNDS = ["model_size_limit", "inference_memory_limit"];

/** The body of POST /jobs. What is no number goes as it is: the server says what is wrong. */
export function requestOf(values) {
  const settings = {
    horizontal_flip: values.horizontal_flip,
    race: values.race,
    reuse: values.reuse,
    refit: values.refit,
    sampler: values.sampler,
    class_weights: values.class_weights,
    fit: values.fit,
  };
  const resolutions = values.resolutions.split(/[\s,;]+/).filter(Boolean);
  if (resolutions.length) settings.resolutions = resolutions.map(numberOrText);
  for (const name of NUMBERS) {
    const text = values[name].trim();
    if (text) settings[name] = numberOrText(text);
  }
  for (const name of ["device", ...BOUNDS, ...AMOUNTS]) {
    const text = values[name].trim();
    if (text) settings[name] = text;
  }
  const limit = values.memory_limit.trim();
  const webhook = values.webhook.trim();
  return {
    dataset: values.dataset,
    ...((limit || !settings.device) && { memory_limit: limit }),
    ...(webhook && { webhook }),
    name: values.name.trim(),
    method: values.method,
    supernet: values.supernet,
    priority: values.priority,
    settings,
  };
}

const numberOrText = (text) => (WHOLE.test(text) || NUMBER.test(text) ? Number(text) : text);

/** { field: sentence } of a refusal; what is about no field of the form is under `""`. */
export function errorsByField(problem) {
  const needed = Object.keys(feasibleAmounts(problem));
  if (needed.length > 0) {
    return Object.fromEntries(needed.map((name) => [name, sentence(problem.message)]));
  }
  const found = {};
  for (const { where, what } of problem.errors ?? []) {
    const field = where.split(".").find((part) => part !== "body" && part !== "settings") ?? "";
    const name = field in FIELD_NAMES ? field : "";
    found[name] ??= name ? sentence(what) : `${where}: ${what}`;
  }
  return Object.keys(found).length > 0 ? found : { "": sentence(problem.message) };
}

/** "6MB", or bytes where that is not exact; empty of none. */
function sizeText(bytes) {
  if (!bytes) return "";
  return bytes % 1e4 === 0 ? `${bytes / 1e6}MB` : String(bytes);
}

/** "10m", "90s" of seconds; empty of none. */
function durationText(seconds) {
  if (!seconds) return "";
  return seconds % 60 === 0 ? `${seconds / 60}m` : `${seconds}s`;
}

/** "20M", or the number where that is not exact; empty of none. */
function countText(count) {
  if (!count) return "";
  return count % 1e4 === 0 ? `${count / 1e6}M` : String(count);
}

/** { field: text } of the limits that a refusal says would just do, in the form's own words:
    hundredths of MB and of M, rounded up. */
export function feasibleAmounts(problem) {
  const rounded = (amount) => (Math.ceil(amount / 1e4) / 100).toFixed(2);
  const { smallestFeasibleBytes: bytes, smallestFeasibleMacs: macs } = problem ?? {};
  const { smallestFeasibleModelBytes: model, smallestFeasibleInferenceBytes: inference } =
    problem ?? {};
  return {
    ...(bytes && { memory_limit: `${rounded(bytes)}MB` }),
    ...(model && { model_size_limit: `${rounded(model)}MB` }),
    ...(inference && { inference_memory_limit: `${rounded(inference)}MB` }),
    ...(macs && { mac_limit: `${rounded(macs)}M` }),
  };
}

/** "1 to 10 000" of a setting, from its schema. */
export function rangeOf(schema) {
  const bounds = schema.anyOf?.find(({ type }) => type !== "null") ?? schema;
  const { minimum, exclusiveMinimum, maximum, exclusiveMaximum, type } = bounds;
  const isWhole = type === "integer";
  const high = maximum ?? (isWhole ? exclusiveMaximum - 1 : undefined);
  if (minimum !== undefined && high !== undefined) {
    return `${formatNumber(minimum)} to ${formatNumber(high)}`;
  }
  const low = minimum === undefined ? `above ${exclusiveMinimum}` : `from ${minimum}`;
  return `${low}, ${high === undefined ? `below ${exclusiveMaximum}` : `at most ${high}`}`;
}

export const FIELD_NAMES = {
  dataset: "Images",
  device: "Device",
  memory_limit: "Memory limit",
  model_size_limit: "Model size",
  inference_memory_limit: "Memory of classifying",
  name: "Name",
  priority: "Priority",
  webhook: "Webhook",
  method: "Method",
  supernet: "Supernet",
  fit: "How a picture becomes a square",
  horizontal_flip: "Mirrored images",
  resolutions: "Image sides",
  sampler: "Sampler",
  time_limit_seconds: "Time limit",
  mac_limit: "Compute limit",
  trials: "Trials",
  patience: "Patience",
  race: "Hopeless candidates",
  reuse: "Earlier jobs",
  epochs: "Epochs",
  adapt_steps: "Adaptation steps",
  batch_size: "Batch size",
  learning_rate: "Learning rate",
  label_smoothing: "Label smoothing",
  class_weights: "Rare classes",
  refit: "Validation images",
  min_crop_scale: "Smallest crop",
  seed: "Seed",
};

export const properties = (schema) => schema.properties;

function sentence(text) {
  const whole = capitalized(text);
  return /[.!?]$/.test(whole) ? whole : `${whole}.`;
}
