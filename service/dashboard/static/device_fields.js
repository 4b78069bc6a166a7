/** What the device can hold: by its name, or by limits. */
import { html } from "./dom.js";
import { SelectField, TextField } from "./fields.js";
import { formatBytes } from "./format.js";
import { BOUNDS } from "./job_form.js";
import { usePolled } from "./polling.js";

const HINTS = {
  model_size_limit: "Most that the network's values may take, such as 2MB.",
  inference_memory_limit:
    "Most that a whole process with Python and onnxruntime may take, such as 90MB.",
};

/** field: the attributes of a named field; offer: a button with a limit that would do. A device that
    is chosen takes the place of the limit. */
export function DeviceFields({ field, offer, onDevice }) {
  const { data: devices } = usePolled("/devices", { seconds: 600 });
  const chosen = field("device");
  const device = devices?.find(({ id }) => id === chosen.value);
  return html`
    <${SelectField}
      ...${chosen}
      onChange=${onDevice}
      hint=${device ? `${device.source}.` : "Its memory is then the limit. Or say a limit below."}
      options=${optionsOf(devices ?? [], chosen.value)}
    />
    <${TextField}
      ...${field("memory_limit")}
      placeholder=${device ? formatBytes(device.memory_bytes) : "24MB"}
      hint="What training may take at its peak, such as 24MB (10⁶ bytes) or 24MiB."
    />
    ${offer("memory_limit")}
  `;
}

/** What else the device can hold no more of. */
export function BoundFields({ field, offer, errors }) {
  return html`
    <details class="advanced" open=${BOUNDS.some((name) => errors[name]) || undefined}>
      <summary>Also bounded</summary>
      <div class="grid pairs">
        ${BOUNDS.map(
          (name) => html`
            <div key=${name}>
              <${TextField} ...${field(name)} placeholder="none" hint=${HINTS[name]} />
              ${offer(name)}
            </div>
          `,
        )}
      </div>
    </details>
  `;
}

function optionsOf(devices, chosen) {
  const listed = devices.map(({ id, name, memory_bytes }) => [
    id,
    `${name}, ${formatBytes(memory_bytes)} for training`,
  ]);
  const isListed = !chosen || listed.some(([id]) => id === chosen);
  return [["", "Another"], ...(isListed ? [] : [[chosen, chosen]]), ...listed];
}
