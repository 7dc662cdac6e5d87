"use strict";
// The sample browser. Builds the page from JSON with textContent alone: nothing a model said is ever markup or code.
(() => {
  const $ = (id) => document.getElementById(id);
  const PAGE = 100;
  const KEYS = ["task", "level", "arm", "filter", "q", "sample", "theme"];
  const FILTERS = ["all", "wrong", "disagree", "right", "failed"];
  const meta = JSON.parse($("meta").textContent);
  const elements = [...document.querySelectorAll("script.chunk")];
  const chunks = meta.places.map((place, i) => ({ ...place, element: elements[i], data: null, asked: null }));
  const state = { task: "", level: "", arm: "", filter: "all", q: "", sample: "", theme: "" };
  let shown = PAGE;
  let found = [];
  let turn = 0;

  const make = (name, className, text) => {
    const element = document.createElement(name);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };

  // A chunk is read when it is first needed: a large report opens as fast as a small one.
  // Served by `loom view`, it comes from the server: all questions, without their texts; see `whole`.
  const read = async (chunk) => {
    const asked = meta.live ? state.q : "";
    if (chunk.asked !== asked) {
      chunk.data = meta.live
        ? await ask("samples.json", { task: chunk.task, level: chunk.level, q: asked })
        : JSON.parse(chunk.element.textContent);
      for (const sample of chunk.data.samples) sample.level = chunk.level;
      chunk.asked = asked;
    }
    return chunk.data;
  };

  const ask = async (name, values) => {
    const response = await fetch(name + "?" + new URLSearchParams(values));
    if (!response.ok) throw new Error((await response.text()) || response.statusText);
    return response.json();
  };

  const whole = async (sample) =>
    meta.live && sample ? { ...(await ask("sample.json", { number: sample.number })), level: sample.level } : sample;

  const readHash = () => {
    if (!location.hash.includes("=")) return false;
    const given = new URLSearchParams(location.hash.slice(1));
    for (const key of KEYS) state[key] = given.get(key) || (key === "filter" ? "all" : "");
    if (!FILTERS.includes(state.filter)) state.filter = "all";
    return true;
  };

  const writeHash = () => {
    const given = new URLSearchParams();
    for (const key of KEYS) if (state[key] && !(key === "filter" && state[key] === "all")) given.set(key, state[key]);
    try {
      history.replaceState(null, "", given.size ? "#" + given : location.pathname + location.search);
    } catch {
      // Some browsers refuse this for files; the page works without it.
    }
  };

  const setTheme = (theme) => {
    if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
  };

  const words = (pieces) => (pieces || []).map((piece) => (piece[0] === "cut" ? "" : piece[1])).join("");
  const haystack = (sample) => {
    if (sample.words === undefined) {
      const parts = [sample.id];
      for (const segment of sample.segments) parts.push(words(segment.pieces));
      for (const reference of sample.references) parts.push(words(reference));
      for (const answer of sample.answers) parts.push(words(answer.text), words(answer.error));
      sample.words = parts.join("\n").toLowerCase();
    }
    return sample.words;
  };

  const passes = (sample) => {
    const answers = state.arm ? sample.answers.filter((answer) => answer.arm === state.arm) : sample.answers;
    const wrong = answers.some((answer) => answer.right === false);
    const failed = answers.some((answer) => answer.state !== "answered");
    if (state.filter === "wrong" && !wrong) return false;
    if (state.filter === "right" && (wrong || failed || !answers.some((answer) => answer.right === true))) return false;
    if (state.filter === "failed" && !failed) return false;
    if (state.filter === "disagree" && !sample.disagree) return false;
    return meta.live || !state.q || haystack(sample).includes(state.q.toLowerCase());
  };

  const depth = (sample) => (sample.depth === null ? "" : "depth " + Number((100 * sample.depth).toFixed(1)) + " %");

  const option = (value, text) => {
    const element = make("option", "", text);
    element.value = value;
    return element;
  };

  const fillControls = () => {
    $("task").replaceChildren(...meta.tasks.map((task) => option(task.name, task.name)));
    $("arm").replaceChildren(option("", "all arms"), ...meta.arms.map((arm) => option(arm, arm)));
  };

  const fillLevels = () => {
    const levels = chunks.filter((chunk) => chunk.task === state.task).map((chunk) => chunk.level);
    if (!levels.includes(state.level)) state.level = "";
    $("level").replaceChildren(option("", "all lengths"), ...levels.map((level) => option(level, level)));
  };

  const mark = (answer) => {
    if (answer.state !== "answered") return ["open", answer.state === "error" ? "!" : "·"];
    return answer.right === null ? ["open", "?"] : answer.right ? ["yes", "✓"] : ["no", "✗"];
  };

  const listItem = (sample, index) => {
    const item = make("li");
    const button = make("button");
    button.type = "button";
    button.dataset.index = index;
    button.append(make("span", "id", sample.id));
    const marks = make("span", "marks");
    for (const answer of sample.answers) {
      const [kind, sign] = mark(answer);
      const element = make("span", kind, sign);
      element.title = answer.arm;
      marks.append(element);
    }
    const where = [sample.level, depth(sample)];
    button.append(marks, make("span", "where", "  " + where.filter(Boolean).join(" · ")));
    button.addEventListener("click", () => open(index));
    item.append(button);
    return item;
  };

  const text = (pieces) => {
    const box = make("div", "text");
    box.dir = "auto";
    box.tabIndex = 0;
    for (const [kind, value] of pieces) {
      if (kind === "cut") box.append(make("span", "cut", " … " + value.toLocaleString("en") + " characters not shown … "));
      else if (kind === "mark") box.append(make("mark", "", value));
      else box.append(value);
    }
    return box;
  };

  const folded = (title, pieces, isOpen) => {
    const details = make("details");
    details.open = isOpen;
    details.append(make("summary", "", title), text(pieces));
    return details;
  };

  const answerCard = (answer) => {
    const card = make("div", "answer" + (answer.right === false ? " wrong" : ""));
    const [kind, sign] = mark(answer);
    const name = make("div", "name");
    name.append(make("span", kind, sign + " "), answer.arm + (answer.repeat ? " · repeat " + answer.repeat : ""));
    const said = [];
    for (const [metric, value] of Object.entries(answer.values)) {
      said.push(metric + " " + (value === null ? "–" : Number(value.toFixed(4))));
    }
    if (answer.finish === "length") said.push("stopped by the token limit");
    if (answer.n_out) said.push(answer.n_out + " tokens");
    if (answer.n_calls > 1) said.push(answer.n_calls + " calls, the last is shown");
    if (answer.n_dropped) said.push(answer.n_dropped + " prompt tokens dropped");
    card.append(name, make("div", "said", [...said, ...(answer.notes || [])].join(" · ")));
    if (answer.state === "missing") card.append(make("div", "said", "not answered yet"));
    else if (answer.error) card.append(make("div", "said", "failed:"), text(answer.error));
    else if (answer.text) card.append(text(answer.text));
    if (answer.reasoning) card.append(folded("reasoning", answer.reasoning, false));
    return card;
  };

  const showSample = (sample) => {
    const article = $("sample");
    article.replaceChildren();
    if (!sample) return;
    const where = [state.task, sample.level, sample.length === null ? "" : sample.length.toLocaleString("en") + " tokens"];
    where.push(depth(sample));
    article.append(make("h3", "", sample.id), make("div", "where", where.filter(Boolean).join(" · ")));
    if (sample.note) article.append(make("p", "banner warning", sample.note));
    article.append(make("h4", "", sample.n_references > 1 ? "references (" + sample.n_references + ")" : "reference"));
    for (const reference of sample.references) article.append(text(reference));
    article.append(make("h4", "", "answers"));
    const answers = make("div", "answers");
    for (const answer of sample.answers) answers.append(answerCard(answer));
    article.append(answers, make("h4", "", "prompt"));
    for (const segment of sample.segments) {
      const marked = segment.pieces.some((piece) => piece[0] === "mark");
      const title = segment.kind + " · " + segment.n.toLocaleString("en") + " characters" + (marked ? " · around the evidence" : "");
      article.append(folded(title, segment.pieces, marked || segment.kind === "question"));
    }
    // A whole context opens at its evidence.
    for (const first of article.querySelectorAll(".text mark:first-of-type")) {
      const box = first.closest(".text");
      box.scrollTop = first.offsetTop - box.offsetTop - box.clientHeight / 3;
    }
  };

  const fail = (error) => {
    $("count").textContent = "The samples cannot be read: " + error.message;
  };

  const open = async (index, focus) => {
    const sample = found[index];
    state.sample = sample ? sample.id : "";
    for (const button of $("list").querySelectorAll("button[data-index]")) {
      const current = Number(button.dataset.index) === index;
      button.setAttribute("aria-current", String(current));
      if (current && focus) button.focus();
    }
    writeHash();
    const now = (turn += 1);
    try {
      const full = await whole(sample);
      if (now === turn) showSample(full);
    } catch (error) {
      fail(error);
    }
  };

  const drawList = () => {
    const items = found.slice(0, shown).map(listItem);
    if (found.length > shown) {
      const item = make("li");
      const more = make("button", "more", "show more (" + (found.length - shown) + ")");
      more.type = "button";
      more.addEventListener("click", () => {
        shown += PAGE;
        drawList();
      });
      item.append(more);
      items.push(item);
    }
    $("list").replaceChildren(...items);
  };

  const update = async () => {
    if (!meta.tasks.some((task) => task.name === state.task)) state.task = (meta.tasks[0] || { name: "" }).name;
    if (!meta.arms.includes(state.arm)) state.arm = "";
    fillLevels();
    for (const key of ["task", "level", "arm"]) $(key).value = state[key];
    if ($("search").value !== state.q) $("search").value = state.q;
    for (const button of document.querySelectorAll("[data-filter]")) {
      button.setAttribute("aria-pressed", String(button.dataset.filter === state.filter));
    }
    const used = chunks.filter((chunk) => chunk.task === state.task && (!state.level || chunk.level === state.level));
    const now = (turn += 1);
    let given = [];
    try {
      given = await Promise.all(used.map(read));
    } catch (error) {
      return fail(error);
    }
    if (now !== turn) return;
    const inside = given.flatMap((chunk) => chunk.samples);
    found = inside.filter(passes);
    const total = used.reduce((sum, chunk) => sum + chunk.n, 0);
    const partly = !meta.live && inside.length < total ? " (of " + total.toLocaleString("en") + " in the run; wrong answers and disagreements first; all of them: loom view)" : "";
    const all = meta.live ? total : inside.length;
    $("count").textContent = found.length.toLocaleString("en") + " of " + all.toLocaleString("en") + " questions" + partly;
    shown = PAGE;
    const wanted = found.findIndex((sample) => sample.id === state.sample);
    if (wanted >= shown) shown = wanted + 1;
    drawList();
    await open(found.length ? Math.max(0, wanted) : -1);
  };

  const change = (key, value) => {
    state[key] = value;
    update();
  };

  $("theme").addEventListener("click", () => {
    const dark = document.documentElement.dataset.theme || (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    state.theme = dark === "dark" ? "light" : "dark";
    setTheme(state.theme);
    writeHash();
  });
  for (const key of ["task", "level", "arm"]) $(key).addEventListener("change", (event) => change(key, event.target.value));
  for (const button of document.querySelectorAll("[data-filter]")) {
    button.addEventListener("click", () => change("filter", button.dataset.filter));
  }
  let waiting = 0;
  $("search").addEventListener("input", (event) => {
    clearTimeout(waiting);
    waiting = setTimeout(() => change("q", event.target.value), 150);
  });
  $("controls").addEventListener("submit", (event) => event.preventDefault());
  $("list").addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1 }[event.key];
    const current = document.activeElement && document.activeElement.dataset.index;
    if (!step || current === undefined) return;
    event.preventDefault();
    const next = Number(current) + step;
    if (next >= 0 && next < Math.min(found.length, shown)) open(next, true);
  });
  addEventListener("hashchange", () => {
    if (readHash()) {
      setTheme(state.theme);
      update();
    }
  });

  const start = async () => {
    const asked = readHash();
    setTheme(state.theme);
    fillControls();
    if (chunks.length) {
      const hash = location.hash;
      await update();
      if (!asked) {
        state.sample = "";
        try {
          history.replaceState(null, "", hash || location.pathname + location.search);
        } catch {
          // See writeHash.
        }
      }
    } else {
      $("count").textContent = "No question is in this report.";
      $("controls").hidden = true;
    }
    document.documentElement.dataset.ready = "true";
  };
  start();
})();
