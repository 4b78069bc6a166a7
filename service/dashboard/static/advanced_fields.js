/** Settings that rarely need a change, folded away. */
import { html } from "./dom.js";
import { SelectField, TextField } from "./fields.js";
import { formatBytes } from "./format.js";
import { NUMBERS, rangeOf } from "./job_form.js";
import { usePolled } from "./polling.js";

const HINTS = {
  trials: "Candidates that the search scores",
  epochs: "Of the final training",
  adapt_steps: "Of the supernet to your images",
  batch_size: "Images an update",
  learning_rate: "Empty for the method's own",
  label_smoothing: "Share of the label spread over the other classes",
  min_crop_scale: "Least share of an image that training shows",
  seed: "The same seed gives the same model",
};

export function AdvancedFields({ schemas, field, errors }) {
  const { properties } = schemas.JobSettings;
  const isWrong = [...NUMBERS, "supernet", "resolutions"].some((name) => errors[name]);
  return html`
    <details class="advanced" open=${isWrong || undefined}>
      <summary>Search and training settings</summary>
      <${Supernet} ...${field("supernet")} />
      <${TextField}
        ...${field("resolutions")}
        hint="Sides that input images may have, in pixels, rising."
      />
      <div class="grid">
        ${NUMBERS.map(
          (name) => html`
            <${TextField}
              key=${name}
              ...${field(name)}
              inputmode="decimal"
              hint=${`${HINTS[name]}: ${rangeOf(properties[name])}`}
            />
          `,
        )}
      </div>
    </details>
  `;
}

function Supernet(field) {
  const { data } = usePolled("/supernets", { seconds: 600 });
  const listed = (data ?? []).map(describe);
  const isListed = listed.some(([id]) => id === field.value);
  return html`
    <${SelectField}
      ...${field}
      hint="What the search cuts networks from."
      options=${isListed ? listed : [[field.value, field.value], ...listed]}
    />
  `;
}

function describe({ id, source, bytes, cached }) {
  const size = bytes ? `, ${formatBytes(bytes)}` : "";
  return [id, `${id} (${source}${size}${cached ? "" : ", fetched on first use"})`];
}
