/** What was asked for, and which workers did it. */
import { html } from "./dom.js";
import {
  formatBytes,
  formatCount,
  formatMacs,
  formatMoment,
  formatNumber,
  formatPercent,
  formatSeconds,
} from "./format.js";
import { usePolled } from "./polling.js";
import { Elapsed } from "./times.js";
import { CLASS_WEIGHTS, METHODS, OUTCOMES, SAMPLERS, capitalized } from "./words.js";

export function Settings({ job }) {
  const { data: dataset } = usePolled(`/datasets/${job.dataset}`, { seconds: 60 });
  const { settings } = job;
  const rows = [
    ["Dataset", dataset ? describe(dataset) : job.dataset],
    ["Memory limit", `${formatBytes(job.memory_limit_bytes)} (${job.memory_limit_bytes} bytes)`],
    ["Method", `${job.method}: trains ${METHODS[job.method] ?? "as it says"}`],
    ...chosenRows(job),
    ...(settings.device ? [["Device", settings.device]] : []),
    ...(settings.model_size_limit
      ? [["Model size limit", formatBytes(settings.model_size_limit)]]
      : []),
    ...(settings.inference_memory_limit
      ? [["Limit of classifying", formatBytes(settings.inference_memory_limit)]]
      : []),
    ...heldRows(job),
    ...supernetRows(job),
    ["Priority", job.priority],
    ["Image sides", settings.resolutions ? `${settings.resolutions.join(", ")}\u00a0px` : "the supernet's own"],
    ["Batch size", settings.batch_size],
    ["Adaptation steps", settings.adapt_steps ?? "what the supernet needs"],
    ...searchRows(settings),
    ["Epochs", settings.epochs ?? "what the supernet needs"],
    ["Mirrored images", settings.horizontal_flip ? "show the same class" : "are not used"],
    ["Smallest crop", `${Math.round(100 * settings.min_crop_scale)}% of the area`],
    ["Label smoothing", settings.label_smoothing],
    ["Rare classes", CLASS_WEIGHTS[settings.class_weights] ?? settings.class_weights],
    ["Validation images", settings.refit ? "are trained on at last" : "are kept apart"],
    ["Learning rate", settings.learning_rate ?? "what method and supernet need"],
    ["Seed", settings.seed],
  ];
  return html`
    <section class="card" aria-labelledby="settings-title">
      <h2 id="settings-title">Settings</h2>
      <dl class="facts wide">
        ${rows.map(
          ([name, value]) => html`
            <div key=${name}>
              <dt>${name}</dt>
              <dd>${value}</dd>
            </div>
          `,
        )}
      </dl>
    </section>
  `;
}

/** The one that is searched, and what was looked at where the images chose it. */
function supernetRows({ supernet, chosen_supernet: chosen, supernet_probes: probes }) {
  if (supernet !== "auto") return [["Supernet", supernet]];
  if (!chosen) return [["Supernet", "auto: your images choose"]];
  const looks = probes.map(
    (probe) =>
      `${probe.supernet} at ${probe.resolution}\u00a0px, ${formatCount(probe.epochs, "epoch")}: ` +
      `${formatPercent(probe.accuracy)} ± ${formatPercent(probe.standard_error)}`,
  );
  return [
    ["Supernet", `${chosen}, chosen by your images`],
    ["Told apart after a short training", looks.join("; ")],
  ];
}

/** What the delivered network takes beside its training. Results of earlier versions say less. */
function heldRows({ result }) {
  const { model_bytes: values, predicted_inference_bytes: classifying } = result ?? {};
  const what = "a process with Python and onnxruntime, as predicted";
  return [
    ...(values ? [["Model size", formatBytes(values)]] : []),
    ...(classifying ? [["Memory of classifying", `${formatBytes(classifying)}: ${what}`]] : []),
  ];
}

/** What the search has chosen, where it was asked to. */
function chosenRows({ method, result }) {
  if (method !== "auto" || !result) return [];
  return [["Chosen method", `${result.method}: trains ${METHODS[result.method]}`]];
}

function searchRows(settings) {
  const { sampler, mac_limit: macs, time_limit_seconds: seconds } = settings;
  return [
    ["Trials", formatNumber(settings.trials)],
    ["Sampler", `${sampler}: ${SAMPLERS[sampler] ?? "as it says"}`],
    ["Time limit", seconds ? formatSeconds(seconds) : "none"],
    ["Compute limit", macs ? `${formatMacs(macs)} multiply-accumulates` : "none"],
    ["Patience", `${formatCount(settings.patience, "trial")} without progress`],
    ["Earlier jobs", settings.reuse ? "are used again" : "are not used"],
    ["Hopeless trials", settings.race ? "are given up early" : "are scored to the end"],
  ];
}

export function Attempts({ path, job }) {
  const { data: attempts } = usePolled(job.attempt > 1 ? `${path}/attempts` : null);
  if (!attempts || attempts.length < 2) return null;
  return html`
    <section class="card" aria-labelledby="attempts-title">
      <h2 id="attempts-title">Attempts</h2>
      <ol class="attempts">
        ${attempts.map(
          (attempt) => html`
            <li key=${attempt.number}>
              <strong>${attempt.worker}</strong>
              <span>
                ${attempt.outcome ? capitalized(OUTCOMES[attempt.outcome]) : "Works on it"}
              </span>
              <span class="hint">
                ${formatMoment(new Date(attempt.started_at))}, for${" "}
                <${Elapsed} from=${attempt.started_at} until=${attempt.ended_at} />
              </span>
            </li>
          `,
        )}
      </ol>
    </section>
  `;
}

const describe = (dataset) =>
  `${dataset.name}: ${formatCount(dataset.num_images, "image")} in ` +
  formatCount(dataset.classes.length, "class", "classes");
