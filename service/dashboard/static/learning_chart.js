/** The learning curves: TinyTL training, and training the head alone to compare. */
import { ChartCanvas, axis, colour } from "./charts.js";
import { html } from "./dom.js";
import { Folded } from "./folded.js";
import { formatPercent } from "./format.js";

const TRAININGS = [
  { id: "tinytl", name: "As delivered", colour: "--series-1", dash: [] },
  { id: "head_only", name: "Head only", colour: "--series-2", dash: [6, 4] },
];

export function Learning({ epochs }) {
  const shown = TRAININGS.filter(({ id }) => epochs[id].length > 0);
  if (shown.length === 0) return null;
  const numEpochs = epochs[shown[0].id][0].num_epochs;
  const isJudged = epochs[shown[0].id][0].val_accuracy !== null;
  return html`
    <section class="card" aria-labelledby="learning-title">
      <h2 id="learning-title">Learning</h2>
      <p class="hint">
        ${
          shown.length > 1
            ? "The same network trained as delivered, and with nothing but its head."
            : "The chosen network, epoch by epoch."
        }
        ${!isJudged && " The validation images are trained on, too: they have chosen the network."}
      </p>
      <div class="curves">
        ${
          isJudged &&
          html`<${Curve}
          title="Validation accuracy (%)"
          trainings=${shown}
          epochs=${epochs}
          numEpochs=${numEpochs}
          read=${(epoch) => 100 * epoch.val_accuracy}
          write=${(value) => `${value.toFixed(1)}%`}
        />`
        }
        <${Curve}
          title="Training loss"
          trainings=${shown}
          epochs=${epochs}
          numEpochs=${numEpochs}
          read=${(epoch) => epoch.train_loss}
          write=${(value) => value.toFixed(3)}
        />
      </div>
      <ul class="legend">
        ${shown.map(
          ({ id, name }) =>
            html`<li key=${id}><span class=${`key line ${id}`}></span>${name}</li>`,
        )}
      </ul>
      <${Folded} summary="As a table" label="Epochs as a table">
        ${() => html`<${Table} ...${{ trainings: shown, epochs, numEpochs, isJudged }} />`}
      <//>
    </section>
  `;
}

function Curve({ title, trainings, epochs, numEpochs, read, write }) {
  const lasts = trainings.map(({ id, name }) => `${name}: ${write(read(epochs[id].at(-1)))}`);
  const count = trainings.map(({ id }) => epochs[id].length).join();
  return html`
    <figure>
      <figcaption>${title}</figcaption>
      <${ChartCanvas}
        height="13rem"
        text=${`${title} by epoch. Last, ${lasts.join("; ")}.`}
        inputs=${[count]}
        configure=${() => configuration({ trainings, epochs, numEpochs, read, write })}
      />
    </figure>
  `;
}

function configuration({ trainings, epochs, numEpochs, read, write }) {
  return {
    type: "line",
    data: {
      labels: Array.from({ length: numEpochs }, (_, index) => index + 1),
      datasets: trainings.map(({ id, name, colour: own, dash }) => ({
        label: name,
        data: epochs[id].map((epoch) => ({ x: epoch.epoch + 1, y: read(epoch) })),
        borderColor: colour(own),
        backgroundColor: colour(own),
        borderDash: dash,
        borderWidth: 2,
        pointRadius: numEpochs > 30 ? 0 : 3,
      })),
    },
    options: {
      interaction: { mode: "index", intersect: false },
      scales: {
        x: axis("Epoch", { offset: true, grid: { display: false } }),
        y: axis("", { grace: "5%" }),
      },
    },
    plugins: {
      tooltip: {
        callbacks: {
          title: ([{ label }]) => `Epoch ${label}`,
          label: ({ dataset, parsed }) => `${dataset.label}: ${write(parsed.y)}`,
        },
      },
    },
  };
}

function Table({ trainings, epochs, numEpochs, isJudged }) {
  const rows = Array.from({ length: numEpochs }, (_, index) => index);
  const told = (id, index) => {
    const epoch = epochs[id][index];
    if (!epoch) return "–";
    const loss = epoch.train_loss.toFixed(3);
    return isJudged ? `${formatPercent(epoch.val_accuracy)}, ${loss}` : loss;
  };
  return html`
    <table>
      <caption>
        ${isJudged ? "Validation accuracy and training loss" : "Training loss"} of each epoch
      </caption>
      <thead>
        <tr>
          <th scope="col">Epoch</th>
          ${trainings.map(({ id, name }) => html`<th key=${id} scope="col">${name}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          (index) => html`
            <tr key=${index}>
              <th scope="row">${index + 1}</th>
              ${trainings.map(({ id }) => html`<td key=${id}>${told(id, index)}</td>`)}
            </tr>
          `,
        )}
      </tbody>
    </table>
  `;
}
