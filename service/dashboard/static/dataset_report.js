/** What was found in an upload. */
import { ContactSheet } from "./contact_sheet.js";
import { html } from "./dom.js";
import { Folded } from "./folded.js";
import { formatBytes, formatCount, formatNumber } from "./format.js";

const SPLITS = [
  ["train", "Training"],
  ["val", "Validation"],
  ["test", "Test"],
];

export function DatasetReport({ dataset, fit }) {
  const { report, counts, classes } = dataset;
  const given = SPLITS.filter(([split]) => total(counts[split]) > 0);
  return html`
    <section class="report" aria-label="What was found">
      <h3>${dataset.name}</h3>
      <dl class="facts">
        <div>
          <dt>Images</dt>
          <dd>${formatNumber(dataset.num_images)} (${formatBytes(dataset.bytes)})</dd>
        </div>
        <div><dt>Classes</dt><dd>${formatNumber(classes.length)}</dd></div>
        ${given.map(
          ([split, name]) => html`
            <div key=${split}>
              <dt>${name}</dt>
              <dd>${formatNumber(total(counts[split]))}</dd>
            </div>
          `,
        )}
        <div><dt>Smallest class</dt><dd>${smallestClass(classes, counts)}</dd></div>
        ${report && html`<${Found} report=${report} />`}
      </dl>
      ${
        report?.notes.length > 0 &&
        html`<ul class="notes">
        ${report.notes.map((note) => html`<li key=${note}>${note}</li>`)}
      </ul>`
      }
      ${report?.contact_sheet && html`<${ContactSheet} dataset=${dataset} fit=${fit} />`}
      <${Folded} summary="Images of each class" label="Images of each class">
        ${() => html`<${Counts} classes=${classes} counts=${counts} given=${given} />`}
      <//>
    </section>
  `;
}

function Counts({ classes, counts, given }) {
  return html`
    <table>
      <thead>
        <tr>
          <th scope="col">Class</th>
          ${given.map(([split, name]) => html`<th key=${split} scope="col">${name}</th>`)}
        </tr>
      </thead>
      <tbody>
        ${classes.map(
          (name) => html`
            <tr key=${name}>
              <th scope="row">${name}</th>
              ${given.map(
                ([split]) => html`<td key=${split}>${formatNumber(counts[split][name] ?? 0)}</td>`,
              )}
            </tr>
          `,
        )}
      </tbody>
    </table>
  `;
}

function Found({ report }) {
  const formats = Object.entries(report.formats).map(
    ([format, count]) => `${formatNumber(count)} ${format}`,
  );
  const [smallest, largest] = [report.smallest_image, report.largest_image].map((size) =>
    size.join("\u00a0×\u00a0"),
  );
  return html`
    <div><dt>Formats</dt><dd>${formats.join(", ")}</dd></div>
    <div>
      <dt>Sizes</dt>
      <dd>${smallest === largest ? smallest : `${smallest} to ${largest}`}\u00a0px</dd>
    </div>
    ${
      report.ignored_files > 0 &&
      html`<div><dt>Left out</dt><dd>${formatCount(report.ignored_files, "file")}</dd></div>`
    }
  `;
}

const total = (ofClasses) => Object.values(ofClasses ?? {}).reduce((sum, count) => sum + count, 0);

function smallestClass(classes, counts) {
  const sizes = classes.map((name) => [counts.train?.[name] ?? 0, name]);
  const [size, name] = sizes.reduce((least, one) => (one[0] < least[0] ? one : least));
  return `${name}, ${formatCount(size, "training image")}`;
}
