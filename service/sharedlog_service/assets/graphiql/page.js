// The page around GraphiQL: who asks, and with which token; the example queries as first tabs.
// Loaded before GraphiQL, and nothing is inline, so that the page's policy can forbid inline scripts.
"use strict";

(() => {
  const PREFIX = "sharedlog:";

  // ---------------------------------------------------------------- what is kept, and where

  /** One of the browser's storages, or memory where the browser refuses them. */
  function area(name) {
    try {
      const storage = window[name];
      storage.getItem(PREFIX);
      return storage;
    } catch {
      const kept = new Map();
      return {
        getItem: (key) => kept.get(key) ?? null,
        setItem: (key, value) => void kept.set(key, value),
        removeItem: (key) => void kept.delete(key),
        key: (index) => [...kept.keys()][index] ?? null,
        get length() {
          return kept.size;
        },
      };
    }
  }

  // The token goes into sessionStorage and nowhere else: it ends with this browser tab and no other tab sees it.
  // localStorage would leave it on the disk for whoever uses this browser next; a cookie would be sent by the
  // browser of its own accord, also when another site makes the request.
  const session = area("sessionStorage");
  const lasting = area("localStorage");

  const who = {
    user: session.getItem(PREFIX + "user") ?? "",
    token: session.getItem(PREFIX + "token") ?? "",
  };

  function become(user, token) {
    who.user = user.trim();
    who.token = token.trim();
    for (const name of ["user", "token"]) {
      if (who[name]) session.setItem(PREFIX + name, who[name]);
      else session.removeItem(PREFIX + name);
    }
  }

  /** Take `#token=…&user=…` from the address and remove it there; true when there was one. */
  function takeFragment() {
    const given = new URLSearchParams(location.hash.slice(1));
    if (!given.has("token") && !given.has("user")) return false;
    history.replaceState(history.state, "", location.pathname + location.search);
    become(given.get("user") ?? who.user, given.get("token") ?? who.token);
    return true;
  }

  takeFragment(); // At once: before the large files are here, and before anybody can copy the address.

  // ---------------------------------------------------------------- asking the service

  let endpoint = "";

  /** Like fetch, with the token; an answer that is not JSON becomes a GraphQL error that can be read. */
  async function fetchWithToken(input, init = {}) {
    const headers = new Headers(init.headers);
    if (who.token) headers.set("Authorization", `Bearer ${who.token}`);
    const response = await fetch(input, { ...init, headers, cache: "no-store" });
    const text = await response.text();
    let answer;
    try {
      answer = JSON.parse(text);
    } catch {
      const message = `HTTP ${response.status} ${response.statusText}: ${text.slice(0, 300)}`.trim();
      answer = { errors: [{ message }] };
    }
    if (isRefusal(response, answer)) showRefusal();
    return new Response(JSON.stringify(answer), {
      status: response.status,
      headers: { "content-type": "application/json" },
    });
  }

  function codesOf(answer) {
    const errors = Array.isArray(answer?.errors) ? answer.errors : [];
    return errors.map((error) => error?.extensions?.code);
  }

  function isRefusal(response, answer) {
    return response.status === 401 || codesOf(answer).includes("UNAUTHENTICATED");
  }

  async function ask(query, variables) {
    const response = await fetchWithToken(endpoint, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ query, variables }),
      signal: AbortSignal.timeout(10_000),
    });
    return await response.json();
  }

  // ---------------------------------------------------------------- the bar

  const $ = (id) => document.getElementById(id);

  function showState(kind, text, detail = "") {
    const state = $("state");
    state.dataset.kind = kind;
    state.textContent = text;
    if (detail) {
      const small = document.createElement("small");
      small.textContent = detail;
      state.append(small);
    }
  }

  /** Show a sentence below the bar; what stands between backticks is shown as code. */
  function showHint(sentence) {
    const hint = $("hint");
    hint.replaceChildren(
      ...sentence.split("`").map((part, index) => {
        if (index % 2 === 0) return part;
        const code = document.createElement("code");
        code.textContent = part;
        return code;
      }),
    );
    hint.hidden = !sentence;
  }

  function showRefusal() {
    // Made to be copied into a shell, and the name may come from a link: only a harmless one is put in.
    const name = /^\w[\w.@-]*$/.test(who.user) ? who.user : "NAME";
    const make = `sharedlog token create --user ${name}`;
    if (who.token) {
      showState("bad", "token refused");
      showHint(`The service does not accept this token. Make a new one where the service runs: \`${make}\``);
    } else {
      showState("warn", "no token");
      showHint(`This log asks for a token. Paste it above, or make one where the service runs: \`${make}\``);
    }
  }

  const counted = (count, one, many) => `${count.toLocaleString()} ${count === 1 ? one : many}`;

  let turns = 0;

  /** Ask the service who we are, say so in the bar, and show GraphiQL for it. */
  async function connect() {
    const turn = ++turns;
    showWho();
    showHint("");
    showState("none", "connecting …");
    let answer = await answerTo(queries.viewer, {});
    if (turn !== turns) return; // Somebody else has begun to connect meanwhile.
    if (!answer.errors) {
      // The token knows its user. A service without tokens does not, and takes our word.
      if (!who.user) become(answer.data.sharedSyncLog.viewer ?? "", who.token);
      if (!who.user) return show(showWhose());
      showWho();
      answer = await answerTo(queries.connect, { userId: who.user });
      if (turn !== turns) return;
    }
    show(showAnswer(answer));
  }

  async function answerTo(query, variables) {
    try {
      const answer = await ask(query, variables);
      return answer.errors || answer.data ? answer : { errors: [{ message: "something that is not GraphQL" }] };
    } catch (error) {
      return { errors: [{ message: `nothing (${error.message})` }] };
    }
  }

  function showWho() {
    $("user").value = who.user;
    $("token").value = who.token;
    $("forget").hidden = !who.token;
  }

  function showWhose() {
    showState("warn", "whose log?");
    showHint("This service asks for no token. Write above whose log you want to see.");
    return null;
  }

  /** Say in the bar what the service answered, and return the row that changed last, if there is one. */
  function showAnswer(answer) {
    if (!answer.errors) {
      const log = answer.data.sharedSyncLog;
      const size = [
        counted(log.stats.entries, "entry", "entries"),
        counted(log.stats.devices, "device", "devices"),
      ].join(", ");
      showState("good", `connected as ${who.user}`, size);
      return log.entries.edges[0]?.node ?? null;
    }
    // Refusing to answer anybody without a token has been said already.
    if (!codesOf(answer).includes("UNAUTHENTICATED")) {
      showState("bad", "not connected");
      showHint(`The service says: ${answer.errors[0]?.message ?? "nothing"}`);
    }
    return null;
  }

  // ---------------------------------------------------------------- the tabs

  let queries = { viewer: "", connect: "", examples: [] };
  let tabs = null; // GraphiQL's own state of its tabs, as it last told
  let tabsUser = "";

  const TABS = "graphiql:tabState";
  const EDITED = new Set([TABS, "graphiql:query", "graphiql:variables", "graphiql:headers", "graphiql:operationName"]);

  function exampleTabs() {
    return {
      activeTabIndex: 0,
      tabs: queries.examples.map((query, index) => {
        const title = /^\s*query\s+(\w+)/m.exec(query)?.[1] ?? "Query";
        const names = [...query.matchAll(/\$(\w+)\s*:/g)].map((match) => match[1]);
        const variables = JSON.stringify(Object.fromEntries(names.map((name) => [name, ""])), null, 2);
        return { id: `example-${index}`, title, query, variables, headers: null, operationName: title, response: null };
      }),
    };
  }

  function storedTabs() {
    try {
      const stored = JSON.parse(session.getItem(PREFIX + TABS));
      return stored?.tabs?.length ? stored : null;
    } catch {
      return null;
    }
  }

  /** Fill what we know into the tabs' variables. A user sees only the own log: userId is never a choice. */
  function fill(state, newest) {
    const changed = who.user !== tabsUser;
    for (const tab of state.tabs) {
      let variables;
      try {
        variables = JSON.parse(tab.variables);
      } catch {
        continue; // Being edited, or empty: not ours to change.
      }
      if (typeof variables !== "object" || variables === null) continue;
      if ("userId" in variables && who.user) variables.userId = who.user;
      if ("collection" in variables && "pk" in variables && newest?.collection) {
        if (changed || (variables.collection === "" && variables.pk === "")) {
          Object.assign(variables, { collection: newest.collection, pk: newest.pk });
        }
      }
      tab.variables = JSON.stringify(variables, null, 2);
      if (changed) tab.response = null;
    }
    if (changed && who.user) session.setItem(PREFIX + "tabsUser", who.user);
    tabsUser = who.user;
  }

  /**
   * GraphiQL's storage, under a prefix of our own. Its tabs live as long as the browser tab does, so that
   * a new one opens with the examples; settings and history last.
   */
  function storageWhile(isCurrent) {
    const place = (key) => (EDITED.has(key) ? session : lasting);
    const ours = (storage) =>
      Array.from({ length: storage.length }, (_, index) => storage.key(index)).filter((key) =>
        key?.startsWith(PREFIX + "graphiql:"),
      );
    return {
      getItem: (key) => place(key).getItem(PREFIX + key),
      // GraphiQL writes with a delay: an instance that was replaced must not overwrite its successor's tabs.
      setItem: (key, value) => void (isCurrent() && place(key).setItem(PREFIX + key, value)),
      removeItem: (key) => void (isCurrent() && place(key).removeItem(PREFIX + key)),
      clear: () => [session, lasting].forEach((storage) => ours(storage).forEach((key) => storage.removeItem(key))),
      get length() {
        return ours(session).length + ours(lasting).length;
      },
    };
  }

  // ---------------------------------------------------------------- GraphiQL

  const NEW_TAB = "# Ctrl-Space completes, Ctrl-Enter runs; the book at the left explains every field.\n\n";

  let root = null;
  let shown = 0;
  let plugins = [];
  let fetcher = null;

  /** Show GraphiQL anew, with what is known now: a new instance reads the schema again, with the new token. */
  function show(newest) {
    const state = tabs ?? storedTabs() ?? exampleTabs();
    fill(state, newest);
    tabs = state;
    const active = state.tabs[state.activeTabIndex] ?? state.tabs[0];
    const stored = { ...state, tabs: state.tabs.map((tab) => ({ ...tab, hash: null, response: null })) };
    session.setItem(PREFIX + TABS, JSON.stringify(stored));
    // GraphiQL opens the tab that has just this query and these variables.
    session.setItem(PREFIX + "graphiql:query", active.query ?? "");
    session.setItem(PREFIX + "graphiql:variables", active.variables ?? "");

    const number = ++shown;
    root ??= ReactDOM.createRoot($("graphiql"));
    root.render(
      React.createElement(
        GraphiQL,
        {
          key: number,
          fetcher,
          plugins,
          storage: storageWhile(() => number === shown),
          onTabChange: (changed) => {
            if (number === shown) tabs = changed;
          },
          defaultQuery: NEW_TAB,
          defaultEditorToolsVisibility: "variables",
          inputValueDeprecation: true,
          // The bar is the one place for the token; typed headers would be kept with the history of queries.
          isHeadersEditorEnabled: false,
          shouldPersistHeaders: false,
        },
        React.createElement(GraphiQL.Logo, null, " "),
      ),
    );
  }

  function start() {
    endpoint = new URL($("graphiql").dataset.endpoint, location.href).href;
    queries = JSON.parse($("queries").textContent);
    tabsUser = session.getItem(PREFIX + "tabsUser") ?? "";
    plugins = [GraphiQLPluginExplorer.explorerPlugin()];
    const send = GraphiQL.createFetcher({
      url: endpoint,
      fetch: fetchWithToken,
      enableIncrementalDelivery: false,
      subscriptionUrl: endpoint.replace(/^http/, "ws"),
      // A getter, as GraphiQL copies this object whenever a subscription starts.
      wsConnectionParams: {
        get Authorization() {
          return who.token ? `Bearer ${who.token}` : undefined;
        },
      },
    });
    // GraphiQL notices a moment after the text that an operation's name has changed: better none than an old one.
    fetcher = ({ operationName, ...rest }, options) => {
      const stale = !new RegExp(`\\b${operationName}\\b`).test(rest.query);
      return send(stale ? rest : { operationName, ...rest }, options);
    };

    $("who").addEventListener("submit", (event) => {
      event.preventDefault();
      become($("user").value, $("token").value);
      connect();
    });
    $("forget").addEventListener("click", () => {
      become(who.user, "");
      connect();
    });
    // A ready address that is opened in this very tab changes nothing but the fragment.
    window.addEventListener("hashchange", () => {
      if (takeFragment()) connect();
    });

    connect();
  }

  // Deferred scripts, GraphiQL among them, have run when this event comes.
  document.addEventListener("DOMContentLoaded", start);
})();
