/** Memory at its peak: predicted by part, measured beside it, and the limit. */
import { ChartCanvas, axis, colour, limitMark } from "./charts.js";
import { html } from "./dom.js";
import { formatBytes, formatPeak, megabytes } from "./format.js";
import { MEMORY_PARTS, peakOf, trainerName } from "./words.js";

export function Memory({ job, best }) {
  const { result } = job;
  if (!result && !best) return null;
  const limit = job.memory_limit_bytes;
  const predicted = (result ?? best).predicted_peak_bytes;
  const measured = result?.measured_peak_bytes ?? null;
  const parts = partsOf(result?.memory?.breakdown_bytes, predicted);
  const text =
    `Peak training memory: ${formatBytes(predicted)} predicted, ` +
    (measured === null ? "" : `${formatBytes(measured)} measured, `) +
    `limit ${formatBytes(limit)}.`;
  return html`
    <section class="card" aria-labelledby="memory-title">
      <h2 id="memory-title">Memory at its peak</h2>
      <p class="hint">
        ${
          result
            ? `What ${peakOf(result.peak_meaning)} holds at its worst moment: the formula by part` +
              (measured === null ? "." : ", and a real training.") +
              ` The checkpoint was trained by ${trainerName(result.trained_by)}.`
            : "The best trial so far, by formula. The chosen network is measured before training."
        }
      </p>
      <${ChartCanvas}
        height=${measured === null ? "7.5rem" : "10rem"}
        text=${text}
        inputs=${[predicted, measured, limit]}
        configure=${() => configuration({ parts, measured, limit })}
      />
      <table class="parts">
        <caption class="hidden">Predicted peak by part</caption>
        <thead class="hidden">
          <tr><th scope="col">Part</th><th scope="col">Size</th></tr>
        </thead>
        <tbody>
          ${parts.map(
            ({ id, name, bytes }) => html`
              <tr key=${id}>
                <th scope="row"><span class=${`key part ${id}`}></span>${name}</th>
                <td>${formatPeak(bytes)}</td>
              </tr>
            `,
          )}
          ${
            parts.length > 1 &&
            html`<tr class="total">
              <th scope="row">Predicted</th>
              <td>${formatPeak(predicted)}</td>
            </tr>`
          }
          ${
            measured !== null &&
            html`<tr class=${parts.length > 1 ? "" : "total"}>
            <th scope="row"><span class="key part measured"></span>Measured</th>
            <td>${formatPeak(measured)}</td>
          </tr>`
          }
          ${
            result?.peak_meaning === "process" &&
            html`<tr>
              <th scope="row">Torch's allocator, measured</th>
              <td>${formatPeak(result.torch_measured_peak_bytes)}</td>
            </tr>`
          }
          <tr>
            <th scope="row"><span class="key limit"></span>Limit</th>
            <td>${formatPeak(limit)}</td>
          </tr>
        </tbody>
      </table>
    </section>
  `;
}

/** The parts of a prediction, the largest kinds first; one whole where no parts are known. */
function partsOf(breakdown, predicted) {
  if (!breakdown) return [{ id: "whole", name: "Predicted", bytes: predicted }];
  const known = MEMORY_PARTS.map(([id, name]) => ({ id, name, bytes: breakdown[id] ?? 0 }));
  return known.filter(({ bytes }) => bytes > 0);
}

function configuration({ parts, measured, limit }) {
  const rows = measured === null ? ["Predicted"] : ["Predicted", "Measured"];
  const bar = (id, label, data) => ({
    label,
    data,
    stack: "peak",
    backgroundColor: colour(`--part-${id.replaceAll("_", "-")}`),
    borderColor: colour("--surface"),
    borderWidth: { right: 1 },
    borderSkipped: false,
    maxBarThickness: 40,
  });
  const datasets = parts.map(({ id, name, bytes }) => bar(id, name, [megabytes(bytes), 0]));
  if (measured !== null) datasets.push(bar("measured", "Measured", [0, megabytes(measured)]));
  return {
    type: "bar",
    data: { labels: rows, datasets },
    options: {
      indexAxis: "y",
      scales: {
        x: axis("MB", {
          stacked: true,
          min: 0,
          max: megabytes(Math.max(limit, measured ?? 0)) * 1.03,
          ticks: { includeBounds: false },
        }),
        y: axis("", { stacked: true, grid: { display: false } }),
      },
    },
    plugins: {
      marks: { lines: [limitMark(limit)] },
      tooltip: {
        filter: ({ raw }) => raw > 0,
        callbacks: { label: ({ dataset, raw }) => `${dataset.label}: ${formatBytes(raw * 1e6)}` },
      },
    },
  };
}
