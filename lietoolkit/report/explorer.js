/* Order explorer: move the sources of a plan, see the predicted change for each target.
 *
 * The predicted loss of an order, up to a constant, is half the sum of the pairwise effects E[i][j]
 * over all pairs with i before j; E[i][j] = L(i then j) - L(j then i). Where orders were tried, what
 * is expected of every order is known instead, by its digits.
 * No dependencies, no network. Text from data only ever enters through textContent.
 */
(function () {
  "use strict";

  function orderValue(matrix, order) {
    let sum = 0;
    for (let a = 0; a < order.length; a++)
      for (let b = a + 1; b < order.length; b++) sum += matrix[order[a]][order[b]];
    return sum / 2;
  }

  /* of = { matrix, expected }: the predicted change of the loss from the planned order. */
  function changeAgainst(of, order, planned) {
    if (of.expected) return of.expected[order.join("")] - of.expected[planned.join("")];
    return orderValue(of.matrix, order) - orderValue(of.matrix, planned);
  }

  function moved(order, from, to) {
    const result = order.slice();
    const [item] = result.splice(from, 1);
    result.splice(Math.max(0, Math.min(to, result.length)), 0, item);
    return result;
  }

  function brokenConstraints(constraints, order) {
    const place = new Map(order.map((source, at) => [source, at]));
    return constraints.filter((c) => c.pairs.some(([a, b]) => place.get(a) > place.get(b)));
  }

  /* The sources to blame for a broken constraint: those in most of its broken pairs. */
  function culprits(constraint, order) {
    const place = new Map(order.map((source, at) => [source, at]));
    const count = new Map();
    for (const pair of constraint.pairs)
      if (place.get(pair[0]) > place.get(pair[1]))
        for (const source of pair) count.set(source, (count.get(source) || 0) + 1);
    const most = Math.max(0, ...count.values());
    return [...count.keys()].filter((source) => count.get(source) === most);
  }

  /* What would do better the other way round: pairs, or neighbors where only whole orders are known. */
  function pairsAgainst(of, order) {
    const found = [];
    for (let a = 0; a < order.length; a++)
      for (let b = a + 1; b < (of.expected ? Math.min(a + 2, order.length) : order.length); b++) {
        const effect = of.expected ? -changeAgainst(of, moved(order, b, a), order)
          : of.matrix[order[a]][order[b]];
        if (effect > 0) found.push({ first: order[a], second: order[b], effect });
      }
    return found.sort((p, q) => q.effect - p.effect);
  }

  function lossText(value) {
    if (value === 0) return "0";
    const sign = value < 0 ? "\u2212" : "+";
    const size = Math.abs(value);
    const [mantissa, exponent] = size.toExponential(1).split("e");
    const power = Number(exponent);
    if (power >= -2 && power < 4) return sign + size.toFixed(Math.max(0, 1 - power));
    const superscript = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶",
      7: "⁷", 8: "⁸", 9: "⁹" };
    const digits = String(power).split("").map((c) => superscript[c]).join("");
    return `${sign}${mantissa}\u00a0×\u00a010${digits}`;
  }

  const api = { orderValue, changeAgainst, moved, brokenConstraints, culprits, pairsAgainst,
    lossText };
  if (typeof module === "object" && module.exports) {
    module.exports = api;
    return;
  }

  function make(tag, attributes, ...children) {
    const node = document.createElement(tag);
    for (const [key, value] of Object.entries(attributes || {})) node.setAttribute(key, value);
    for (const child of children) node.append(child);
    return node;
  }

  function mount(root) {
    const plan = JSON.parse(root.dataset.plan);
    const { names, planned, total, targets, constraints } = plan;
    const several = targets.length > 1;
    let order = planned.slice();
    // The longest bar: the largest change that any order could make, so bars never jump in scale.
    const scale = Math.max(...[total, ...targets].map((t) => t.expected
      ? Math.max(...Object.values(t.expected).map(Math.abs))
      : t.matrix.flat().reduce((sum, e) => sum + Math.abs(e), 0) / 2)) || 1;

    const list = make("ol", { class: "lt-sources", "aria-label": "Order of the sources" });
    const items = names.map((name, source) => {
      const up = make("button", { type: "button", "aria-label": `Move ${name} earlier` }, "▲");
      const down = make("button", { type: "button", "aria-label": `Move ${name} later` }, "▼");
      const place = make("span", { class: "lt-place", "aria-hidden": "true" });
      const flag = make("span", { class: "lt-flag" });
      const label = make("span", { class: "lt-name" }, name, flag);
      const handle = make("span", { class: "lt-handle", "aria-hidden": "true" }, "⠿");
      const item = make("li", { tabindex: "0" }, handle, place, label, up, down);
      up.addEventListener("click", () => step(source, -1, up));
      down.addEventListener("click", () => step(source, 1, down));
      item.addEventListener("keydown", (event) => key(event, source));
      item.addEventListener("pointerdown", (event) => drag(event, source));
      return { item, place, flag, up, down };
    });
    const body = make("tbody");
    const table = make("table", {},
      make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "target"),
        make("th", { scope: "col" }, "predicted change against the plan"),
        make("th", { "aria-hidden": "true" }))), body);
    const row = (name, strong) => {
      const value = make("td", { class: "lt-value" });
      const fill = make("span", { class: "lt-fill" });
      const line = make("tr", strong ? { class: "lt-total" } : {},
        make("th", { scope: "row" }, name), value,
        make("td", { class: "lt-bar", "aria-hidden": "true" }, fill));
      body.append(line);
      return { value, fill };
    };
    const rows = targets.map((t) =>
      ({ of: t, ...row(several ? `${t.name} (weight ${t.weight})` : t.name, !several) }));
    if (several) rows.push({ of: total, ...row("weighted sum", true) });

    const summary = make("p", { class: "lt-summary", role: "status", "aria-live": "polite" });
    const against = make("p", { class: "lt-against" });
    const wishes = make("ul", { class: "lt-wishes", "aria-label": "Constraints" });
    const reset = make("button", { type: "button" }, "Back to the plan");
    const reverse = make("button", { type: "button" }, "Reverse");
    reset.addEventListener("click", () => set(planned.slice()));
    reverse.addEventListener("click", () => set(order.slice().reverse()));

    function set(next) {
      order = next;
      order.forEach((source, at) => {
        // Moving only what is out of place keeps the focus where it is.
        const { item } = items[source];
        if (list.children[at] !== item) list.insertBefore(item, list.children[at] || null);
      });
      draw();
    }

    function draw() {
      const broken = brokenConstraints(constraints, order);
      order.forEach((source, at) => {
        const { item, place, flag, up, down } = items[source];
        place.textContent = `${at + 1}.`;
        up.disabled = at === 0;
        down.disabled = at === order.length - 1;
        const mine = broken.filter((c) => culprits(c, order).includes(source));
        flag.textContent = mine.map((c) => `breaks “${c.text}”`).join(", ");
        item.classList.toggle("lt-broken", mine.length > 0);
      });
      for (const { of, value, fill } of rows) {
        const change = clean(changeAgainst(of, order, planned));
        const word = change < 0 ? " better" : change > 0 ? " worse" : "";
        value.textContent = lossText(change) + word;
        const width = Math.min(50, (50 * Math.abs(change)) / scale);
        fill.className = change > 0 ? "lt-fill lt-worse" : "lt-fill lt-better";
        fill.style.width = `${width}%`;
        fill.style.left = change > 0 ? "50%" : `${50 - width}%`;
      }
      const change = clean(changeAgainst(total, order, planned));
      const same = order.every((source, at) => source === planned[at]);
      const what = same ? "This is the planned order."
        : change === 0 ? "Predicted: no difference from the plan."
        : `Predicted loss ${lossText(change)} against the plan: ${change < 0 ? "better" : "worse"}.`;
      const rule = broken.length ? ` Breaks ${broken.map((c) => `“${c.text}”`).join(", ")}.` : "";
      summary.textContent = what + rule;
      const costly = pairsAgainst(total, order);
      const listed = costly.slice(0, 3).map((p) =>
        `${names[p.second]} before ${names[p.first]} (${lossText(p.effect)})`);
      const more = costly.length > 3 ? ` and ${costly.length - 3} more` : "";
      against.textContent = costly.length
        ? `${total.expected ? "Neighbors" : "Pairs"} that would do better the other way round: ` +
          `${listed.join(", ")}${more}.`
        : `Every pair${total.expected ? " of neighbors" : ""} agrees with this order.`;
      wishes.replaceChildren(...constraints.map((c) => {
        const kept = !broken.includes(c);
        return make("li", { class: kept ? "lt-kept" : "lt-broken" },
          `${kept ? "✓ kept" : "✗ broken"}: ${c.text}`);
      }));
    }

    function clean(change) {
      // Sums in another order differ by rounding; that is no change.
      return Math.abs(change) < 1e-12 * scale ? 0 : change;
    }

    function step(source, by, focus) {
      const from = order.indexOf(source);
      const to = from + by;
      if (to < 0 || to >= order.length) return;
      set(moved(order, from, to));
      (focus.disabled ? items[source].item : focus).focus();
    }

    function key(event, source) {
      const by = { ArrowUp: -1, ArrowDown: 1 }[event.key];
      if (!by || event.target !== items[source].item) return;
      event.preventDefault();
      event.stopPropagation();
      if (event.altKey) return step(source, by, items[source].item);
      const next = order[order.indexOf(source) + by];
      if (next !== undefined) items[next].item.focus();
    }

    function drag(event, source) {
      const touch = event.pointerType !== "mouse";
      if (event.button || event.target.closest("button")) return;
      if (touch && !event.target.closest(".lt-handle")) return;
      event.preventDefault();
      const { item } = items[source];
      item.focus();
      item.classList.add("lt-dragged");
      const move = (e) => {
        const others = order.filter((s) => s !== source);
        const to = others.filter((s) => {
          const box = items[s].item.getBoundingClientRect();
          return box.top + box.height / 2 < e.clientY;
        }).length;
        if (to !== order.indexOf(source)) {
          set(moved(order, order.indexOf(source), to));
          item.focus();
        }
      };
      const stop = () => {
        item.classList.remove("lt-dragged");
        document.removeEventListener("pointermove", move);
        document.removeEventListener("pointerup", stop);
        document.removeEventListener("pointercancel", stop);
      };
      document.addEventListener("pointermove", move);
      document.addEventListener("pointerup", stop);
      document.addEventListener("pointercancel", stop);
    }

    root.replaceChildren(
      make("p", { class: "lt-help" }, "Drag a source, use its ▲ ▼ buttons, or select it and press " +
        "Alt + ↑ or Alt + ↓."),
      make("div", { class: "lt-columns" },
        make("div", {}, list, make("p", { class: "lt-buttons" }, reset, " ", reverse)),
        make("div", {}, summary, table, against, wishes)));
    set(order);
    root.dataset.ready = "yes";
  }

  document.querySelectorAll(".lt-explorer:not([data-ready])").forEach(mount);
})();
