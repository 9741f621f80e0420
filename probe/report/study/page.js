"use strict";
(() => {
  const root = document.documentElement;
  const all = (selector, of = document) => [...of.querySelectorAll(selector)];

  // ---- what is compressed

  const unpack = async (element) => {
    const letters = atob(element.textContent);
    const bytes = Uint8Array.from(letters, (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  };

  let loading = null;
  const loadPlotly = () => {
    loading ??= unpack(document.getElementById("plotly")).then((text) => {
      const script = document.createElement("script");
      script.textContent = text; // its digest stands in the policy
      document.head.append(script);
      return window.Plotly;
    });
    return loading;
  };

  // ---- light and dark

  const dark = matchMedia("(prefers-color-scheme: dark)");
  const isDark = () => (root.dataset.scheme ? root.dataset.scheme === "dark" : dark.matches);
  const button = document.getElementById("scheme");
  const nameButton = () => (button.textContent = isDark() ? "Light" : "Dark");
  const turn = () => {
    nameButton();
    all(".plots").forEach(draw);
  };
  button.hidden = false;
  nameButton();
  button.addEventListener("click", () => {
    root.dataset.scheme = isDark() ? "light" : "dark";
    turn();
  });
  dark.addEventListener("change", turn);

  // ---- tables

  const NUMBER = /^\s*[<>]?\s*([+-]?\d[\d_]*\.?\d*(?:e[+-]?\d+)?)(?![\w.:-]*\w)/i;
  const number = (text) => {
    const found = NUMBER.exec(text);
    return found ? Number(found[1]) : NaN;
  };
  const words = new Intl.Collator("en", { numeric: true });

  const sort = (table, place, heading) => {
    const isUp = heading.ariaSort !== "ascending";
    for (const other of all("th[aria-sort]", table)) other.ariaSort = "none";
    heading.ariaSort = isUp ? "ascending" : "descending";
    const body = table.tBodies[0];
    const keyed = [...body.rows].map((row) => {
      const text = row.cells[place].textContent.trim();
      return { row, text, value: number(text) };
    });
    const isEmpty = (of) => of.text === "" || of.text === "-";
    keyed.sort((a, b) => {
      if (isEmpty(a) || isEmpty(b)) return isEmpty(a) - isEmpty(b); // last, whichever way
      const isBoth = !Number.isNaN(a.value) && !Number.isNaN(b.value);
      const found = isBoth ? a.value - b.value : words.compare(a.text, b.text);
      return isUp ? found : -found;
    });
    body.append(...keyed.map((of) => of.row));
  };

  const addFilter = (table) => {
    const rows = [...table.tBodies[0].rows];
    const box = document.createElement("label");
    box.className = "filter";
    const input = document.createElement("input");
    input.type = "search";
    input.placeholder = "Filter rows";
    const count = document.createElement("span");
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const show = () => {
      const wanted = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let n = 0;
      rows.forEach((row, place) => {
        row.hidden = !wanted.every((word) => texts[place].includes(word));
        n += !row.hidden;
      });
      count.textContent = n < rows.length ? `${n} of ${rows.length} rows` : `${n} rows`;
    };
    input.addEventListener("input", show);
    show();
    box.append(input, count);
    table.parentElement.before(box);
  };

  for (const table of all("table")) {
    const body = table.tBodies[0];
    if (!body || body.rows.length < 2) continue;
    const headings = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    headings.forEach((heading, place) => {
      heading.ariaSort = "none";
      heading.tabIndex = 0;
      heading.title = "Sort";
      heading.addEventListener("click", () => sort(table, place, heading));
      heading.addEventListener("keydown", (event) => {
        if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          sort(table, place, heading);
        }
      });
    });
    if (body.rows.length > 8) addFilter(table);
  }

  // ---- figures

  const probe = document.createElement("span");
  probe.hidden = true;
  document.body.append(probe);
  let shown = {};
  const colour = (name) => {
    if (!(name in shown)) {
      probe.style.color = name;
      shown[name] = getComputedStyle(probe).color;
    }
    return shown[name];
  };
  // A copy with colours in place of the style's variables.
  const coloured = (value) => {
    if (typeof value === "string") return value.startsWith("var(--") ? colour(value) : value;
    if (Array.isArray(value)) return value.map(coloured);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([name, of]) => [name, coloured(of)]));
  };

  const isPrecise = matchMedia("(pointer: fine)").matches;
  const axis = (of = {}) => ({
    automargin: true,
    zeroline: false,
    gridcolor: "var(--line)",
    linecolor: "var(--soft)",
    tickcolor: "var(--line)",
    tickfont: { size: 11, color: "var(--soft)" },
    ...of,
    ...(of.title ? { title: { standoff: 8, font: { size: 12 }, ...of.title } } : {}),
  });
  const layoutOf = (of) => ({
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: "var(--ink)" },
    showlegend: false,
    hovermode: "closest",
    dragmode: isPrecise ? "zoom" : false,
    hoverlabel: {
      bgcolor: "var(--paper)",
      bordercolor: "var(--soft)",
      font: { color: "var(--ink)", size: 12 },
      align: "left",
    },
    ...of,
    margin: { l: 8, r: 12, t: 10, b: 8, ...of.margin },
    annotations: (of.annotations ?? []).map((each) => ({
      font: { size: 11, color: "var(--soft)" },
      ...each,
    })),
    xaxis: axis(of.xaxis),
    yaxis: axis(of.yaxis),
  });

  const contents = new WeakMap(); // figure -> its plots
  const PRINTED = 310; // px of a panel on paper, two of which stand beside each other
  let isPrinting = false;
  const draw = (figure) => {
    const of = contents.get(figure);
    if (!of || !window.Plotly) return;
    shown = {};
    all(".plot", figure).forEach((box, place) => {
      const { data, layout } = of.plots[place];
      const config = { displayModeBar: false, responsive: !isPrinting };
      const found = layoutOf(layout);
      if (isPrinting) {
        const own = parseFloat(box.parentElement.style.width || box.closest(".panels").style.getPropertyValue("--least"));
        found.width = Math.max(PRINTED, own);
      }
      window.Plotly.react(box, coloured(data), coloured(found), config);
    });
  };

  const unpackFigure = async (figure) => {
    const of = JSON.parse(await unpack(figure.querySelector(".data")));
    contents.set(figure, of);
    const link = figure.querySelector(".csv");
    link.href = URL.createObjectURL(new Blob([of.csv], { type: "text/csv" }));
    link.hidden = false;
  };

  const near = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (!isIntersecting) continue;
        near.unobserve(target);
        Promise.all([unpackFigure(target), loadPlotly()]).then(() => draw(target));
      }
    },
    { rootMargin: "800px" },
  );
  all(".plots").forEach((figure) => near.observe(figure));

  // On paper all of them are in view.
  const rest = async () => {
    await loadPlotly();
    for (const figure of all(".plots")) {
      if (contents.has(figure)) continue;
      near.unobserve(figure);
      await unpackFigure(figure);
      draw(figure);
      await new Promise((done) => setTimeout(done, 50));
    }
  };
  if (all(".plots").length) setTimeout(rest, 4000);

  const print = (is) => {
    isPrinting = is;
    const before = root.dataset.scheme;
    if (is) root.dataset.scheme = "light";
    all(".plots").forEach(draw);
    if (is && before) root.dataset.scheme = before;
    if (is && !before) delete root.dataset.scheme;
  };
  addEventListener("beforeprint", () => print(true));
  addEventListener("afterprint", () => print(false));

  // ---- contents

  const links = new Map(all("nav a").map((link) => [link.hash.slice(1), link]));
  const mark = () => {
    const above = all("section").filter((of) => of.getBoundingClientRect().top < innerHeight / 3);
    for (const link of links.values()) link.removeAttribute("aria-current");
    links.get(above.at(-1)?.id)?.setAttribute("aria-current", "true");
  };
  addEventListener("scroll", mark, { passive: true });
  mark();
  const details = document.querySelector("nav details");
  const narrow = matchMedia("(max-width: 60rem)");
  const fold = () => (details.open = !narrow.matches);
  narrow.addEventListener("change", fold);
  fold();
})();
