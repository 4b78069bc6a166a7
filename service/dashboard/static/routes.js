/** Where the user is, in the address after #: #/jobs?status=failed, #/jobs/ID, #/new. */
import { useEffect, useState } from "./dom.js";

/** view: "jobs", "job" (with its id), "new" or "lost"; parameters: what stands after ?. */
export function parseRoute(hash) {
  const [path, query = ""] = hash.replace(/^#/, "").split("?", 2);
  const parameters = new URLSearchParams(query);
  const [first = "", second, ...rest] = path.replace(/^\//, "").split("/");
  if (rest.length === 0 && second === undefined) {
    if (first === "" || first === "jobs") return { view: "jobs", parameters };
    if (first === "new") return { view: "new", parameters };
  }
  if (rest.length === 0 && first === "jobs" && second) {
    const id = decoded(second);
    if (id !== null) return { view: "job", id, parameters };
  }
  return { view: "lost", parameters };
}

/** null where a % stands before what is no character. */
function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return null;
  }
}

/** Where the API has a job. */
export const jobPath = (id) => `/jobs/${encodeURIComponent(id)}`;

export const jobAddress = (id) => `#/jobs/${encodeURIComponent(id)}`;

/** The list of jobs, filtered and turned to a page; what is empty is left out. */
export function jobsAddress(members = {}) {
  const given = Object.entries(members).filter(([, value]) => value);
  return given.length > 0 ? `#/jobs?${new URLSearchParams(given)}` : "#/jobs";
}

export function useRoute() {
  const [hash, setHash] = useState(location.hash);
  useEffect(() => {
    const onChange = () => setHash(location.hash);
    addEventListener("hashchange", onChange);
    return () => removeEventListener("hashchange", onChange);
  }, []);
  return { ...parseRoute(hash), hash };
}
