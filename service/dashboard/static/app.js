/** The page: its frame, and the view that the address names. */
import { connection, hasKey, setKey } from "./api.js";
import { Banners } from "./banners.js";
import { html, render, useEffect, useRef } from "./dom.js";
import { JobPage } from "./job_page.js";
import { JobsPage } from "./jobs_page.js";
import { KeyDialog } from "./key_dialog.js";
import { NewJobPage } from "./new_job_page.js";
import { useRoute } from "./routes.js";
import { useStore } from "./store.js";

function App() {
  const route = useRoute();
  const main = useRef(null);
  useFocusOnArrival(route.view + (route.id ?? ""), main);
  const toMain = (event) => {
    event.preventDefault();
    main.current.focus();
  };
  return html`
    <a class="skip" href="#main" onClick=${toMain}>Skip to the content</a>
    <${Header} view=${route.view} />
    <main id="main" ref=${main} tabindex="-1">
      <${Banners} />
      <${View} route=${route} />
    </main>
    <${KeyDialog} />
  `;
}

function View({ route }) {
  if (route.view === "jobs") return html`<${JobsPage} parameters=${route.parameters} />`;
  if (route.view === "job") return html`<${JobPage} key=${route.id} id=${route.id} />`;
  if (route.view === "new") {
    return html`<${NewJobPage} key=${route.hash} parameters=${route.parameters} />`;
  }
  return html`
    <h1 tabindex="-1">Nothing is here</h1>
    <p>No view has this address. <a href="#/jobs">See the jobs</a>.</p>
  `;
}

function Header({ view }) {
  useStore(connection);
  const current = (name) => (view === name ? "page" : undefined);
  return html`
    <header class="bar">
      <div class="bar-inner">
        <a class="logo" href="#/jobs">
          <img src="/static/icon.svg" alt="" width="24" height="24" />tinyfit
        </a>
        <nav aria-label="Views">
          <a href="#/jobs" aria-current=${current("jobs")}>Jobs</a>
          <a href="#/new" aria-current=${current("new")}>New job</a>
        </nav>
        ${
          hasKey() &&
          html`<button type="button" class="quiet" onClick=${() => setKey(null)}>
            Forget key
          </button>`
        }
      </div>
    </header>
  `;
}

/** After a change of view the heading has the focus, as after loading a page. */
function useFocusOnArrival(place, main) {
  const arrived = useRef(place);
  useEffect(() => {
    if (arrived.current === place) return;
    arrived.current = place;
    const heading = main.current.querySelector("h1") ?? main.current;
    heading.focus({ preventScroll: true });
    scrollTo(0, 0);
  }, [place]);
}

render(html`<${App} />`, document.body);
