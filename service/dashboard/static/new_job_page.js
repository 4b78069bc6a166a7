/** The form that makes a job. */
import { request } from "./api.js";
import { DatasetPicker } from "./dataset_picker.js";
import { html, useEffect, useRef, useState } from "./dom.js";
import { CheckField, SelectField, TextField } from "./fields.js";
import { AdvancedFields } from "./advanced_fields.js";
import { BoundFields, DeviceFields } from "./device_fields.js";
import {
  errorsByField,
  FIELD_NAMES,
  feasibleAmounts,
  initialValues,
  requestOf,
} from "./job_form.js";
import { remember, usePolled } from "./polling.js";
import { jobAddress, jobPath } from "./routes.js";
import { METHODS, capitalized } from "./words.js";

export function NewJobPage({ parameters }) {
  const from = parameters.get("from");
  const { data: description, error } = usePolled("/openapi.json", { seconds: 600 });
  const { data: job, error: absent } = usePolled(from && jobPath(from), {
    seconds: 600,
  });
  useEffect(() => {
    document.title = "New job · tinyfit";
  }, []);
  const isReady = description && (!from || job || absent);
  return html`
    <div class="narrow">
      <div class="heading"><h1 tabindex="-1">New job</h1></div>
      ${error?.status && html`<p class="banner bad" role="alert">${error.message}</p>`}
      ${
        isReady
          ? html`<${Form} schemas=${description.components.schemas} job=${job} />`
          : html`<p class="hint" role="status">Loading…</p>`
      }
    </div>
  `;
}

function Form({ schemas, job }) {
  const [values, setValues] = useState(() => initialValues(schemas, job));
  const [problem, setProblem] = useState(null);
  const [isSending, setIsSending] = useState(false);
  const form = useRef(null);
  const sent = useRef({ body: null, key: null });
  const errors = problem ? errorsByField(problem) : {};

  const set = (name) => (value) => setValues((before) => ({ ...before, [name]: value }));
  const field = (name) => ({
    id: name,
    label: FIELD_NAMES[name],
    value: values[name],
    onChange: set(name),
    error: errors[name],
  });
  const feasible = feasibleAmounts(problem);
  const offer = (name) =>
    feasible[name] &&
    html`<p class="offer">
      <button
        type="button"
        onClick=${() => {
          set(name)(feasible[name]);
          setProblem(null);
          document.getElementById(name).focus();
        }}
      >
        Use ${feasible[name]}
      </button>
    </p>`;
  const onSubmit = async (event) => {
    event.preventDefault();
    if (isSending) return;
    if (!values.dataset) {
      setProblem(missing("dataset", "Choose images first."));
      return;
    }
    setIsSending(true);
    setProblem(null);
    try {
      const made = await request("/jobs", {
        method: "POST",
        json: requestOf(values),
        headers: { "Idempotency-Key": keyFor(sent, values) },
      });
      remember(jobPath(made.data.id), made.data);
      location.hash = jobAddress(made.data.id);
    } catch (refusal) {
      setProblem(refusal);
      setIsSending(false);
    }
  };
  useEffect(() => {
    if (problem === null) return;
    const wrong = form.current.querySelector('[aria-invalid="true"], .summary');
    wrong.closest("details")?.setAttribute("open", "");
    wrong.focus();
  }, [problem]);

  return html`
    <form ref=${form} class="job-form" onSubmit=${onSubmit} novalidate>
      <${DatasetPicker}
        dataset=${values.dataset}
        onChoose=${set("dataset")}
        error=${errors.dataset}
        fit=${field("fit")}
      />
      <fieldset class="card">
        <legend><h2>Device</h2></legend>
        <${DeviceFields}
          field=${field}
          offer=${offer}
          onDevice=${(device) => setValues((before) => ({ ...before, device, memory_limit: "" }))}
        />
        <${SelectField}
          ...${field("method")}
          hint="What is trained on the device. The classifier always is."
          options=${schemas.MethodChoice.enum.map((method) => [
            method,
            METHODS[method] ? `${capitalized(METHODS[method])} (${method})` : method,
          ])}
        />
        <${CheckField}
          ...${field("horizontal_flip")}
          label="A mirrored image shows the same class"
          hint="Training then mirrors images at random. Not so for text or digits."
        />
        <${BoundFields} field=${field} offer=${offer} errors=${errors} />
      </fieldset>
      <fieldset class="card">
        <legend><h2>Job</h2></legend>
        <${TextField} ...${field("name")} hint="For you to know it by; may be empty." />
        <${SelectField}
          ...${field("priority")}
          hint="Among the jobs that wait; one that runs is not interrupted."
          options=${schemas.Priority.enum.map((name) => [name, capitalized(name)])}
        />
        <${AdvancedFields} schemas=${schemas} field=${field} offer=${offer} errors=${errors} />
      </fieldset>
      ${
        errors[""] &&
        html`<p class="banner bad summary" role="alert" tabindex="-1">${errors[""]}</p>`
      }
      <div class="buttons">
        <button class="primary" disabled=${isSending}>
          ${isSending ? "Sending…" : "Start the job"}
        </button>
        <a class="button" href="#/jobs">Back</a>
      </div>
    </form>
  `;
}

const missing = (where, what) => ({ errors: [{ where, what }] });

/** The same request keeps its key, so that sending it again after a lost answer makes no second
    job. By getRandomValues: randomUUID is there over https only. */
function keyFor(sent, values) {
  const body = JSON.stringify(requestOf(values));
  if (sent.current.body !== body) {
    const random = crypto.getRandomValues(new Uint8Array(16));
    const key = Array.from(random, (byte) => byte.toString(16).padStart(2, "0")).join("");
    sent.current = { body, key };
  }
  return sent.current.key;
}
