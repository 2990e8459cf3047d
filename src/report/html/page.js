"use strict";
// The page is whole without this: it makes the chart larger, names its bars, finds them, and obeys keys.
(() => {
  const id = (name) => document.getElementById(name);
  const plane = id("plane");
  const data = JSON.parse(id("data").textContent);
  document.querySelectorAll(".keys").forEach((part) => { part.hidden = false; });

  const time = (ms) => {
    const s = ms / 1000;
    if (s < 9.95) return s.toFixed(1) + "s";
    const whole = Math.round(s);
    if (whole < 60) return whole + "s";
    const two = (n) => String(n).padStart(2, "0");
    if (whole < 3600) return Math.floor(whole / 60) + "m" + two(whole % 60) + "s";
    return Math.floor(whole / 3600) + "h" + two(Math.floor(whole % 3600 / 60)) + "m";
  };
  const clock = (ms) => {
    const s = Math.floor(ms / 1000);
    return s < 3600 ? Math.floor(s / 60) + "m" + String(s % 60).padStart(2, "0") + "s" : time(ms);
  };
  const element = (name, values, text) => {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const key in values) made.setAttribute(key, values[key]);
    if (text !== undefined) made.textContent = text;
    return made;
  };

  // --- The chart -----------------------------------------------------------------------------------------------------
  let chart = null;
  if (plane) {
    const scroller = id("scroller"), tip = id("tip"), ticks = id("ticks"), over = id("over");
    const height = Number(plane.getAttribute("height"));
    const bars = plane.querySelectorAll("#bars rect:not(.z)");
    const number = new Map();
    bars.forEach((bar, n) => number.set(bar, n));
    const lanes = [...plane.querySelectorAll("#bars g")].map((group) => ({
      group, top: group.transform.baseVal.getItem(0).matrix.f, height: parseFloat(group.style.getPropertyValue("--h")),
    }));
    let zoom = 1, middle = null;

    const named = (n) => {
      const [name] = data.bars[n];
      return name < 0 ? -name + " short ones" : data.names[name];
    };
    const site = (n) => data.sites[bars[n].parentNode.dataset.s];

    const scale = () => {
      const width = plane.getBoundingClientRect().width;
      const steps = [.1, .2, .5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400];
      const step = (steps.find((s) => s * 1000 / data.end * width >= 80) || 28800) * 1000;
      const first = Math.floor(scroller.scrollLeft / width * data.end / step);
      const last = Math.ceil((scroller.scrollLeft + scroller.clientWidth) / width * data.end / step);
      const parts = [];
      for (let n = Math.max(first, 0); n <= last && n * step <= data.end; n++) {
        const at = n * step / data.end * 100 + "%";
        parts.push(element("line", { x1: at, x2: at, y1: 0, y2: height }));
        parts.push(element("text", { x: at, dx: 3, y: 11 }, step < 1000 ? (n * step / 1000).toFixed(1) + "s" : clock(n * step)));
      }
      ticks.replaceChildren(...parts);
    };

    // Names in all bars that are wide enough now and can be seen.
    const names = () => {
      over.querySelectorAll(".n").forEach((old) => old.remove());
      const width = plane.getBoundingClientRect().width;
      const from = scroller.scrollLeft / width * data.end, to = (scroller.scrollLeft + scroller.clientWidth) / width * data.end;
      const parts = [];
      for (const lane of lanes) {
        if (lane.height < 11) continue;
        for (const bar of lane.group.children) {
          const n = number.get(bar);
          if (n === undefined) continue;
          const [, start, length] = data.bars[n];
          if (length / data.end * width < 46 || start > to || start + length < from) continue;
          const shown = Math.max(start, from);
          const part = element("svg", {
            class: "n", x: shown / data.end * 100 + "%", y: lane.top, width: (start + length - shown) / data.end * 100 + "%", height: lane.height,
          });
          part.append(element("text", { x: 4, y: lane.height / 2 + 3.5 }, named(n)));
          parts.push(part);
        }
      }
      over.append(...parts);
    };
    let waiting = false;
    const drawn = () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; scale(); names(); });
    };

    // Around a place on the screen, else around what was found, else around what is in the middle.
    const enlarge = (to, at) => {
      const width = plane.getBoundingClientRect().width;
      const left = at === undefined ? scroller.clientWidth / 2 : at;
      const share = at === undefined && middle !== null ? middle : (scroller.scrollLeft + left) / width;
      zoom = Math.min(Math.max(to, 1), 400);
      plane.style.width = zoom * 100 + "%";
      scroller.scrollLeft = share * plane.getBoundingClientRect().width - left;
      drawn();
    };

    const hide = () => { tip.hidden = true; };
    const tell = (n, x, y) => {
      const [, start, length] = data.bars[n];
      const name = document.createElement("b");
      name.textContent = named(n);
      const failed = bars[n].classList.contains("f") ? " · failed" : bars[n].classList.contains("o") ? " · not over" : "";
      tip.replaceChildren(name, site(n) + " · at " + clock(start) + " for " + time(length) + failed);
      tip.hidden = false;
      const box = tip.getBoundingClientRect();
      tip.style.left = Math.max(4, Math.min(x + 12, innerWidth - box.width - 8)) + "px";
      tip.style.top = (y + 18 + box.height > innerHeight ? y - box.height - 8 : y + 18) + "px";
    };
    plane.addEventListener("pointermove", (event) => {
      const n = number.get(event.target);
      if (n === undefined) hide(); else tell(n, event.clientX, event.clientY);
    });
    plane.addEventListener("pointerleave", hide);
    scroller.addEventListener("scroll", () => { hide(); drawn(); });
    scroller.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.metaKey) return;
      event.preventDefault();
      middle = null;
      enlarge(zoom * Math.exp(-event.deltaY / 300), event.clientX - scroller.getBoundingClientRect().left);
    }, { passive: false });
    addEventListener("resize", drawn);

    const show = (n) => {
      const [, start, length] = data.bars[n];
      plane.querySelectorAll(".hit").forEach((old) => old.classList.remove("hit"));
      bars[n].classList.add("hit");
      middle = (start + length / 2) / data.end;
      enlarge(Math.max(zoom, Math.min(data.end / Math.max(length, 1) / 8, 200)));
      bars[n].scrollIntoView({ block: "center", inline: "center" });
      const box = bars[n].getBoundingClientRect();
      // After the scrolling has hidden it.
      setTimeout(() => tell(n, box.left, box.bottom - 14), 60);
    };

    // --- Finding ---
    const find = id("find"), found = id("found");
    let hits = [], on = 0;
    const mark = () => [...found.children].forEach((item, n) => item.classList.toggle("on", n === on));
    const take = (n) => { found.replaceChildren(); show(n); };
    find.addEventListener("input", () => {
      const words = find.value.toLowerCase().split(/\s+/).filter(Boolean);
      hits = [];
      if (words.length) {
        const right = new Set();
        data.names.forEach((name, n) => { if (words.every((word) => name.toLowerCase().includes(word))) right.add(n); });
        data.bars.forEach(([name], n) => { if (right.has(name)) hits.push(n); });
        hits.sort((a, b) => data.bars[b][2] - data.bars[a][2]);
      }
      on = 0;
      found.replaceChildren(...hits.slice(0, 12).map((n) => {
        const item = document.createElement("li"), more = document.createElement("small");
        more.textContent = site(n) + " · " + time(data.bars[n][2]);
        item.append(named(n), more);
        item.addEventListener("mousedown", (event) => { event.preventDefault(); take(n); });
        return item;
      }));
      if (words.length && !hits.length) {
        const none = document.createElement("li");
        none.textContent = "nothing in the chart is called so";
        found.replaceChildren(none);
      }
      mark();
    });
    find.addEventListener("keydown", (event) => {
      const shown = Math.min(hits.length, 12);
      if (event.key === "ArrowDown" && shown) { on = (on + 1) % shown; mark(); event.preventDefault(); }
      if (event.key === "ArrowUp" && shown) { on = (on + shown - 1) % shown; mark(); event.preventDefault(); }
      if (event.key === "Enter" && shown) take(hits[on]);
      if (event.key === "Escape") { found.replaceChildren(); find.blur(); }
    });
    find.addEventListener("blur", () => found.replaceChildren());
    id("in").addEventListener("click", () => enlarge(zoom * 2));
    id("out").addEventListener("click", () => enlarge(zoom / 2));
    id("all").addEventListener("click", () => enlarge(1));
    document.querySelector(".tools").hidden = false;
    drawn();
    chart = { find, in: () => enlarge(zoom * 1.6), out: () => enlarge(zoom / 1.6), all: () => enlarge(1),
      move: (by) => { middle = null; scroller.scrollLeft += by * scroller.clientWidth / 4; } };
  }

  // --- Keys ----------------------------------------------------------------------------------------------------------
  const sections = [...document.querySelectorAll("section[id]")];
  const step = (by) => {
    const tops = sections.map((section) => section.getBoundingClientRect().top);
    const here = by > 0 ? tops.findIndex((top) => top > 30) : tops.findLastIndex((top) => top < -10);
    if (here >= 0) { sections[here].scrollIntoView(); sections[here].focus({ preventScroll: true }); }
    else scrollTo({ top: by > 0 ? document.body.scrollHeight : 0 });
  };
  const keys = {
    "/": () => { if (chart) { id("timeline").scrollIntoView({ block: "nearest" }); chart.find.focus(); } },
    "+": () => chart && chart.in(), "=": () => chart && chart.in(), "-": () => chart && chart.out(), "0": () => chart && chart.all(),
    ArrowLeft: () => chart && chart.move(-1), ArrowRight: () => chart && chart.move(1),
    j: () => step(1), k: () => step(-1),
    "?": () => { const keys = id("keys"); if (keys.open) keys.close(); else keys.showModal(); },
  };
  addEventListener("keydown", (event) => {
    const typing = event.target instanceof HTMLInputElement;
    if (typing || event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(keys, event.key)) return;
    event.preventDefault();
    keys[event.key]();
  });
})();
