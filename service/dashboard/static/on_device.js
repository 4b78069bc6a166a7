/** What trains a finished job's network further on a device: a download for each kind. */
import { download } from "./api.js";
import { html, useState } from "./dom.js";
import { formatBytes, formatPeak } from "./format.js";
import { usePolled } from "./polling.js";

export function OnDevice({ path, job }) {
  const { data: trainer, refresh } = usePolled(job.result ? `${path}/device` : null, {
    seconds: 300,
  });
  const [busy, setBusy] = useState(null);
  const [refusal, setRefusal] = useState(null);
  if (!trainer) return null;
  const { targets } = trainer;
  const available = targets.filter(({ unavailable }) => unavailable === null);
  const reason = targets.find(({ unavailable }) => unavailable !== null)?.unavailable;

  const get = async ({ target, url }) => {
    if (busy !== null) return;
    setBusy(target);
    setRefusal(null);
    try {
      await download(url);
    } catch (error) {
      setRefusal(error.message);
    }
    setBusy(null);
    refresh();
  };
  return html`
    <section class="card" aria-labelledby="device-title">
      <h2 id="device-title">On the device</h2>
      <p class="hint">
        One executable without Python trains the network further, on images that stay there. Memory
        is that of its whole process.
      </p>
      ${
        available.length > 0 &&
        html`<${Targets} targets=${available} busy=${busy} get=${get} />`
      }
      <div role="status">
        ${busy !== null && html`<p class="hint">The trainer is built; the first time takes a minute.</p>`}
      </div>
      ${refusal && html`<p class="refusal" role="alert">${refusal}</p>`}
      ${
        reason &&
        html`<p class="hint">${available.length > 0 ? "For others: " : "Not here: "}${reason}.</p>`
      }
    </section>
  `;
}

function Targets({ targets, busy, get }) {
  return html`
    <table class="devices">
      <caption class="hidden">Devices, and what the trainer takes there</caption>
      <thead>
        <tr>
          <th scope="col">Device</th>
          <th scope="col">Memory</th>
          <th scope="col"><span class="hidden">Download</span></th>
        </tr>
      </thead>
      <tbody>
        ${targets.map((one) => {
          const { target, description, binary_bytes: binary, predicted_process_bytes: peak } = one;
          return html`
            <tr key=${target}>
              <th scope="row">
                ${description}
                <span class="hint">${target}</span>
                <span class="hint">
                  ${binary === null ? "not built yet" : `executable of ${formatBytes(binary)}`}
                </span>
              </th>
              <td>${peak === null ? "–" : formatPeak(peak)}</td>
              <td>
                <button
                  type="button"
                  aria-disabled=${busy !== null}
                  aria-label=${`Get it for ${description}`}
                  onClick=${() => get(one)}
                >
                  ${busy === target ? "Building…" : "Get"}
                </button>
              </td>
            </tr>
          `;
        })}
      </tbody>
    </table>
  `;
}
