/** Choosing the images: dropped, picked from the disk, or uploaded before. */
import { DatasetRemoval } from "./dataset_removal.js";
import { DatasetReport } from "./dataset_report.js";
import { html, useEffect, useRef, useState } from "./dom.js";
import { SelectField } from "./fields.js";
import { formatBytes, formatCount } from "./format.js";
import { filesIn, tarOf } from "./folder_tar.js";
import { usePolled } from "./polling.js";
import { uploadDataset } from "./upload.js";

/** fit: the attributes of the field that says how a picture becomes a square. */
export function DatasetPicker({ dataset, onChoose, error, fit }) {
  const { data: known, refresh } = usePolled("/datasets?limit=1000", { seconds: 30 });
  const [sending, setSending] = useState(null);
  const [refusal, setRefusal] = useState(null);
  const [fresh, setFresh] = useState(null);
  const input = useRef(null);
  const running = useRef(null);
  useEffect(() => () => running.current?.stop(), []);

  const upload = async (archive) => {
    running.current?.stop();
    setRefusal(null);
    setSending({ archive, share: 0 });
    running.current = uploadDataset(archive, (share) => setSending({ archive, share }));
    try {
      const stored = await running.current.done;
      if (stored === null) return;
      setFresh(stored);
      onChoose(stored.id);
      refresh();
    } catch (failure) {
      setRefusal({ message: failure.message, broken: failure.errors ?? [], archive });
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
              onArchive=${upload}
              onRefuse=${(message) => setRefusal({ message, broken: [] })}
              isInvalid=${Boolean(error)}
            />`
      }
      <div role="status">
        ${shown && !sending && html`<p class="hidden">${summary(shown)}</p>`}
      </div>
      ${refusal && html`<${Refusal} ...${refusal} onSkip=${upload} />`}
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
        <${DatasetReport} dataset=${shown} fit=${fit.value} />
        <${DatasetRemoval} key=${shown.id} dataset=${shown} onRemoved=${onRemoved} />
      `
      }
      <${SelectField}
        ...${fit}
        hint="Of a picture that is no square. Auto goes by how much a crop would leave out."
        options=${FITS}
      />
    </fieldset>
  `;
}

/** Why an upload was refused; what can't be used may be left out. */
function Refusal({ message, broken, archive, onSkip }) {
  if (broken.length === 0) return html`<p class="banner bad" role="alert">${message}</p>`;
  const count = formatCount(broken.length, "image");
  return html`
    <div class="banner bad" role="alert">
      <p>${count} can't be used:</p>
      <ul class="broken">
        ${broken.map(({ where, what }) => html`<li key=${where}>${what}</li>`)}
      </ul>
      <button type="button" onClick=${() => onSkip({ ...archive, skipBroken: true })}>
        Go on without ${broken.length === 1 ? "it" : "them"}
      </button>
    </div>
  `;
}

function DropZone({ input, onArchive, onRefuse, isInvalid }) {
  const [isOver, setIsOver] = useState(false);
  const takeFiles = (found) => {
    if (found.length === 0) return;
    const [top] = found[0].path.split("/");
    onArchive({ name: top, blob: tarOf(found) });
  };
  const takeFile = (file) => {
    if (file) onArchive({ name: file.name.replace(ARCHIVE, ""), blob: file });
  };
  const onDrop = async (event) => {
    event.preventDefault();
    setIsOver(false);
    const { items, files } = event.dataTransfer;
    const entries = [...items].map((item) => item.webkitGetAsEntry()).filter(Boolean);
    const [file] = files;
    try {
      const inFolders = await filesIn(entries);
      if (inFolders) takeFiles(inFolders);
      else if (entries.length > 1 || files.length > 1) onRefuse(SEVERAL);
      else takeFile(file);
    } catch (error) {
      onRefuse(`The folder can't be read (${error.message}).`);
    }
  };
  const onDragOver = (event) => {
    event.preventDefault();
    setIsOver(true);
  };
  const chosen = ({ target }) =>
    takeFiles([...target.files].map((file) => ({ path: file.webkitRelativePath, file })));
  return html`
    <div
      class=${`drop ${isOver ? "over" : ""}`}
      onDragOver=${onDragOver}
      onDragLeave=${() => setIsOver(false)}
      onDrop=${onDrop}
    >
      <label for="file">Drop a zip here, a tar or a folder, or choose an archive</label>
      <input
        ref=${input}
        type="file"
        id="file"
        accept=".zip,.tar,.tgz,.gz,.bz2,.parquet,application/zip,application/x-tar"
        aria-describedby=${`file-hint${isInvalid ? " dataset-error" : ""}`}
        aria-invalid=${isInvalid ? "true" : undefined}
        onChange=${(event) => takeFile(event.target.files[0])}
      />
      <label for="folder">Or choose a folder</label>
      <input type="file" id="folder" webkitdirectory onChange=${chosen} />
      <p class="hint" id="file-hint">
        A folder per class, such as <code>cat/001.jpg</code>; optionally inside${" "}
        <code>train</code>, <code>val</code> and <code>test</code>. Or images and a CSV of${" "}
        <code>file_name</code> and <code>label</code>, or what Roboflow, Edge Impulse, CVAT,
        FiftyOne, Label Studio and Kaggle export.
      </p>
    </div>
  `;
}

function Sending({ archive: { name, blob }, share, onStop }) {
  const isSent = share >= 1;
  return html`
    <div class="drop">
      <p>
        <strong>${name}</strong>, ${formatBytes(blob.size)}:
        ${isSent ? " sent; every image is checked." : ` ${Math.floor(100 * share)}% sent`}
      </p>
      <progress
        aria-label=${`Upload of ${name}`}
        value=${isSent ? undefined : share}
        max="1"
      ></progress>
      <button type="button" onClick=${onStop}>Stop</button>
    </div>
  `;
}

const ARCHIVE = /(\.tar)?\.(zip|tar|tgz|gz|bz2|parquet)$/i;

const SEVERAL = "Drop one archive or folder that holds all the images, not several files.";

const FITS = [
  ["auto", "As the images suggest (auto)"],
  ["crop", "Its centre (crop)"],
  ["pad", "All of it, on a plain ground (pad)"],
  ["squash", "All of it, out of proportion (squash)"],
];

const summary = ({ num_images: images, classes }) =>
  `${formatCount(images, "image")} in ${formatCount(classes.length, "class", "classes")} chosen.`;

const option = (dataset) => [
  dataset.id,
  `${dataset.name}: ${summary(dataset).replace(" chosen.", "")}`,
];
