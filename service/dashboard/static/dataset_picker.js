/** Choosing the images: dropped, picked from the disk, or uploaded before. */
import { DatasetRemoval } from "./dataset_removal.js";
import { DatasetReport } from "./dataset_report.js";
import { html, useEffect, useRef, useState } from "./dom.js";
import { SelectField } from "./fields.js";
import { formatBytes, formatCount } from "./format.js";
import { usePolled } from "./polling.js";
import { uploadDataset } from "./upload.js";

export function DatasetPicker({ dataset, onChoose, error }) {
  const { data: known, refresh } = usePolled("/datasets?limit=1000", { seconds: 30 });
  const [sending, setSending] = useState(null);
  const [refusal, setRefusal] = useState(null);
  const [fresh, setFresh] = useState(null);
  const input = useRef(null);
  const running = useRef(null);
  useEffect(() => () => running.current?.stop(), []);

  const upload = async (file) => {
    running.current?.stop();
    setRefusal(null);
    setSending({ file, share: 0 });
    running.current = uploadDataset(file, (share) => setSending({ file, share }));
    try {
      const stored = await running.current.done;
      if (stored === null) return;
      setFresh(stored);
      onChoose(stored.id);
      refresh();
    } catch (failure) {
      setRefusal(failure.message);
    }
    setSending(null);
  };
  const onRemoved = () => {
    setFresh(null);
    onChoose("");
    refresh();
    input.current?.focus();
  };
  const stop = () => {
    running.current.stop();
    setSending(null);
  };

  const shown = [fresh, ...(known ?? [])].find((one) => one?.id === dataset);
  return html`
    <fieldset class="card">
      <legend><h2>Images</h2></legend>
      ${
        sending
          ? html`<${Sending} ...${sending} onStop=${stop} />`
          : html`<${DropZone}
              input=${input}
              onFile=${upload}
              onRefuse=${setRefusal}
              isInvalid=${Boolean(error)}
            />`
      }
      <div role="status">
        ${shown && !sending && html`<p class="hidden">${summary(shown)}</p>`}
      </div>
      ${refusal && html`<p class="banner bad" role="alert">${refusal}</p>`}
      ${error && !refusal && html`<p class="error" id="dataset-error">${error}</p>`}
      ${
        known?.length > 0 &&
        html`<${SelectField}
        id="dataset"
        label="Or images uploaded before"
        value=${dataset}
        onChange=${onChoose}
        options=${[
          ["", "Choose a dataset"],
          ...(fresh && !known.some(({ id }) => id === fresh.id) ? [fresh] : []).map(option),
          ...known.map(option),
        ]}
      />`
      }
      ${
        shown &&
        !sending &&
        html`
        <${DatasetReport} dataset=${shown} />
        <${DatasetRemoval} key=${shown.id} dataset=${shown} onRemoved=${onRemoved} />
      `
      }
    </fieldset>
  `;
}

function DropZone({ input, onFile, onRefuse, isInvalid }) {
  const [isOver, setIsOver] = useState(false);
  const take = (files) => {
    if (files.length > 0) onFile(files[0]);
  };
  const onDrop = (event) => {
    event.preventDefault();
    setIsOver(false);
    const refusal = refusalOf(event.dataTransfer);
    if (refusal) onRefuse(refusal);
    else take(event.dataTransfer.files);
  };
  const onDragOver = (event) => {
    event.preventDefault();
    setIsOver(true);
  };
  return html`
    <div
      class=${`drop ${isOver ? "over" : ""}`}
      onDragOver=${onDragOver}
      onDragLeave=${() => setIsOver(false)}
      onDrop=${onDrop}
    >
      <label for="file">Drop a zip here, or choose one</label>
      <input
        ref=${input}
        type="file"
        id="file"
        accept=".zip,application/zip"
        aria-describedby=${`file-hint${isInvalid ? " dataset-error" : ""}`}
        aria-invalid=${isInvalid ? "true" : undefined}
        onChange=${(event) => take(event.target.files)}
      />
      <p class="hint" id="file-hint">
        A folder per class, such as <code>cat/001.jpg</code>; optionally inside${" "}
        <code>train</code>, <code>val</code> and <code>test</code>.
      </p>
    </div>
  `;
}

function Sending({ file, share, onStop }) {
  const isSent = share >= 1;
  return html`
    <div class="drop">
      <p>
        <strong>${file.name}</strong>, ${formatBytes(file.size)}:
        ${isSent ? " sent; every image is checked." : ` ${Math.floor(100 * share)}% sent`}
      </p>
      <progress
        aria-label=${`Upload of ${file.name}`}
        value=${isSent ? undefined : share}
        max="1"
      ></progress>
      <button type="button" onClick=${onStop}>Stop</button>
    </div>
  `;
}

/** Why what was dropped is not sent; null where it is. */
function refusalOf({ items, files }) {
  if (files.length > 1) return "Drop one zip that holds all the images, not several files.";
  if (items[0]?.webkitGetAsEntry()?.isDirectory) {
    return "This is a folder: drop a zip of it, or run tinyfit submit FOLDER.";
  }
  return null;
}

const summary = ({ num_images: images, classes }) =>
  `${formatCount(images, "image")} in ${formatCount(classes.length, "class", "classes")} chosen.`;

const option = (dataset) => [
  dataset.id,
  `${dataset.name}: ${summary(dataset).replace(" chosen.", "")}`,
];
