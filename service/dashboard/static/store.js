/** A value that several components watch. */
import { useLayoutEffect, useState } from "./dom.js";

export function createStore(value) {
  const watchers = new Set();
  return {
    get: () => value,
    /** Change some of the members; watchers hear of it where one differs. */
    set(members) {
      if (Object.keys(members).every((name) => Object.is(members[name], value[name]))) return;
      value = { ...value, ...members };
      for (const watcher of watchers) watcher(value);
    },
    watch(watcher) {
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
  };
}

export function useStore(store) {
  const [value, setValue] = useState(store.get());
  useLayoutEffect(() => {
    setValue(store.get());
    return store.watch(setValue);
  }, [store]);
  return value;
}
