/** How well a finished job's network tells each class, and what it is most confidently wrong on. */
import { html } from "./dom.js";
import { Folded } from "./folded.js";
import { formatPercent, formatShare } from "./format.js";
import { usePolled } from "./polling.js";

const MOST_SHOWN = 12;

export function Classes({ path, job }) {
  const isKnown = Boolean(job.result?.headline);
  const { data: evaluation } = usePolled(isKnown ? `${path}/evaluation` : null, { seconds: 300 });
  if (!evaluation) return null;
  const { classes, mistakes } = evaluation;
  return html`
    <section class="card" aria-labelledby="classes-title">
      <h2 id="classes-title">Class by class</h2>
      <p class="hint">
        Recall: how many test images of the class are found. Precision: how many of those told to be
        of it are.
      </p>
      <div class="scroll" tabindex="0" role="region" aria-label="Recall and precision">
        <${Scores} classes=${classes} />
      </div>
      ${
        evaluation.confusion &&
        (classes.length <= MOST_SHOWN
          ? html`<div class="scroll" tabindex="0" role="region" aria-label="Confusion">
              <${Confusion} evaluation=${evaluation} />
            </div>`
          : html`<${Folded} summary="What is taken for what" label="Confusion">
              ${() => html`<${Confusion} evaluation=${evaluation} />`}
            </${Folded}>`)
      }
    </section>
    ${mistakes.length > 0 && html`<${Mistakes} mistakes=${mistakes} />`}
  `;
}

function Scores({ classes }) {
  return html`
    <table class="scores">
      <caption class="hidden">Recall and precision of every class</caption>
      <thead>
        <tr>
          <th scope="col">Class</th>
          <th scope="col">Test images</th>
          <th scope="col">Recall</th>
          <th scope="col">Precision</th>
        </tr>
      </thead>
      <tbody>
        ${classes.map(
          ({ name, support, recall, precision }) => html`
            <tr key=${name}>
              <th scope="row">${name}</th>
              <td>${support}</td>
              <td><${Share} value=${recall} /></td>
              <td><${Share} value=${precision} /></td>
            </tr>
          `,
        )}
      </tbody>
    </table>
  `;
}

/** null: a share of nothing. */
function Share({ value }) {
  if (value === null) return html`<span class="hint">none</span>`;
  return html`<span class="share">
    <meter min="0" max="1" value=${value} aria-hidden="true"></meter>${formatPercent(value)}
  </span>`;
}

function Confusion({ evaluation: { classes, confusion } }) {
  return html`
    <table class="confusion">
      <caption>Test images by their label (row) and what they are told to be (column)</caption>
      <thead>
        <tr>
          <td></td>
          ${classes.map(({ name }) => html`<th key=${name} scope="col">${name}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${confusion.map((row, label) => {
          const { name, support } = classes[label];
          return html`
            <tr key=${name}>
              <th scope="row">${name}</th>
              ${row.map(
                (count, told) => html`<td
                  key=${told}
                  class=${told === label ? "right" : "wrong"}
                  data-share=${tenths(count, support)}
                >${count || ""}</td>`,
              )}
            </tr>
          `;
        })}
      </tbody>
    </table>
  `;
}

/** A share of a row in tenths, rounded up: any mistake is seen. */
const tenths = (count, support) => (support ? Math.ceil((10 * count) / support) : 0);

function Mistakes({ mistakes }) {
  return html`
    <section class="card" aria-labelledby="mistakes-title">
      <h2 id="mistakes-title">Most confidently wrong</h2>
      <p class="hint">Test images; some may be labelled wrongly themselves.</p>
      <ul class="mistakes">
        ${mistakes.map(
          ({ image, label, predicted, probability }, index) => html`
            <li key=${index}>
              <img src=${image} alt="" width="96" height="96" />
              <span><strong>${label}</strong>, told to be</span>
              <span class="told">${predicted}, ${formatShare(probability)}</span>
            </li>
          `,
        )}
      </ul>
    </section>
  `;
}
