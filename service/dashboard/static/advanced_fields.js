/** Settings that rarely need a change, folded away. */
import { html } from "./dom.js";
import { CheckField, SelectField, TextField } from "./fields.js";
import { formatBytes } from "./format.js";
import { AMOUNTS, SEARCH_NUMBERS, TRAINING_NUMBERS, rangeOf } from "./job_form.js";
import { usePolled } from "./polling.js";
import { CLASS_WEIGHTS, SAMPLERS, capitalized } from "./words.js";

const HINTS = {
  trials: "Candidates that the search scores, at most",
  patience: "The search ends after so many trials without progress",
  epochs: "Of the final training, empty for what the supernet needs",
  adapt_steps: "Of the supernet to your images, empty for what it needs",
  batch_size: "Images an update",
  learning_rate: "Empty for what method and supernet need",
  label_smoothing: "Share of the label spread over the other classes",
  min_crop_scale: "Least share of an image that training shows",
  seed: "The same seed gives the same model",
};

const FOLDED = [
  ...["supernet", "resolutions", "sampler", "class_weights", "webhook"],
  ...AMOUNTS,
  ...SEARCH_NUMBERS,
];

/** field: the attributes of a named field; offer: a button with a limit that would do. */
export function AdvancedFields({ schemas, field, offer, errors }) {
  const { properties } = schemas.JobSettings;
  const isWrong = [...FOLDED, ...TRAINING_NUMBERS].some((name) => errors[name]);
  const number = (name) => html`
    <${TextField}
      key=${name}
      ...${field(name)}
      inputmode="decimal"
      hint=${`${HINTS[name]}: ${rangeOf(properties[name])}`}
    />
  `;
  return html`
    <details class="advanced" open=${isWrong || undefined}>
      <summary>Search and training settings</summary>
      <h3>Search</h3>
      <${Supernet} ...${field("supernet")} />
      <${TextField}
        ...${field("resolutions")}
        hint="Sides that input images may have, in pixels, rising. Empty for the supernet's own."
      />
      <${SelectField}
        ...${field("sampler")}
        hint="How the search finds candidates to score."
        options=${properties.sampler.enum.map((name) => [
          name,
          SAMPLERS[name] ? `${capitalized(SAMPLERS[name])} (${name})` : name,
        ])}
      />
      <div class="grid pairs">
        ${SEARCH_NUMBERS.map(number)}
        <${TextField}
          ...${field("time_limit_seconds")}
          placeholder="none"
          hint="Of the search, such as 10m or 2h. Where Trials is empty, it decides alone."
        />
        <div>
          <${TextField}
            ...${field("mac_limit")}
            placeholder="none"
            hint="Most multiply-accumulates of one image, such as 20M, for slow devices."
          />
          ${offer("mac_limit")}
        </div>
      </div>
      <${CheckField}
        ...${field("race")}
        label="Give up hopeless candidates early"
        hint="A candidate that another of no more memory beats beyond doubt is not scored further."
      />
      <${CheckField}
        ...${field("reuse")}
        label="Use what earlier jobs have found"
        hint="Their adapted supernet and its scores, where images and settings are the same."
      />
      <h3>Training</h3>
      <${SelectField}
        ...${field("class_weights")}
        hint="Whether images of rare classes are looked at as often as those of others."
        options=${properties.class_weights.enum.map((name) => [
          name,
          CLASS_WEIGHTS[name] ? `${capitalized(CLASS_WEIGHTS[name])} (${name})` : name,
        ])}
      />
      <div class="grid">${TRAINING_NUMBERS.map(number)}</div>
      <${CheckField}
        ...${field("refit")}
        label="Train on the validation images, too"
        hint="Once they have chosen the network: more images make a better one."
      />
      <h3>When it ends</h3>
      <${TextField}
        ...${field("webhook")}
        inputmode="url"
        placeholder="https://"
        hint="The job is posted there once it has ended, signed. Empty for nowhere."
      />
    </details>
  `;
}

function Supernet(field) {
  const { data } = usePolled("/supernets", { seconds: 600 });
  const listed = [["auto", "As images and limits suggest (auto)"], ...(data ?? []).map(describe)];
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
