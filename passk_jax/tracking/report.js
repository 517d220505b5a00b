// Searches the samples. Whatever a run wrote comes into the page by textContent alone.
(() => {
  const SHOWN = 20;
  const runs = JSON.parse(document.getElementById("samples-data").textContent);
  const groups = runs.flatMap((run) => run.groups.map(
    ([step, split, problem, prompt, reference, samples]) => ({
      run: run.run, step, split, problem, prompt, reference,
      samples: samples.map(([text, times, reward, right, weight]) => ({text, times, reward, right, weight})),
    })));
  const form = document.getElementById("samples-form");
  const count = document.getElementById("samples-count");
  const list = document.getElementById("samples-list");
  const more = document.getElementById("samples-more");

  const make = (tag, text, kind) => {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (kind) element.className = kind;
    return element;
  };
  const number = (value, signed) => value === null ? "–"
    : (signed && value > 0 ? "+" : "") + (Number.isInteger(value) ? value : Number(value.toPrecision(4)));

  for (const key of ["run", "split", "step"]) {
    const values = [...new Set(groups.map((group) => group[key]))];
    const select = form.elements[key];
    for (const value of values) select.append(new Option(value, value));
    if (values.length < 2) select.parentElement.hidden = true;
  }

  const keeps = {
    right: (sample) => sample.right,
    wrong: (sample) => !sample.right,
    above: (sample) => sample.weight > 0,
    below: (sample) => sample.weight < 0,
    zero: (sample) => sample.weight === 0,
    none: (sample) => sample.weight === null,
  };
  const found = () => {
    const words = form.elements.words.value.toLowerCase();
    const same = ["run", "split", "step"].filter((key) => form.elements[key].value);
    const tests = ["outcome", "weight"].map((key) => keeps[form.elements[key].value]).filter(Boolean);
    return groups.flatMap((group) => {
      if (same.some((key) => String(group[key]) !== form.elements[key].value)) return [];
      const asked = `${group.problem}\n${group.prompt}`.toLowerCase().includes(words);
      const samples = group.samples.filter((sample) => tests.every((test) => test(sample))
        && (asked || sample.text.toLowerCase().includes(words)));
      return samples.length ? [{...group, samples}] : [];
    });
  };

  const card = (group) => {
    const article = make("article", undefined, "card");
    const header = make("header");
    header.append(make("pre", group.prompt.trim()));
    const facts = [group.problem, group.reference === null ? "" : `reference ${group.reference}`,
      `step ${group.step}`, group.split, runs.length > 1 ? group.run : ""];
    header.append(make("p", facts.filter(Boolean).join(" · ")));
    const table = make("table", undefined, "samples");
    const titles = table.createTHead().insertRow();
    for (const [i, title] of ["completion", "times", "reward", "weight"].entries()) {
      const cell = make("th", title, i ? "number" : "");
      cell.scope = "col";
      titles.append(cell);
    }
    const body = table.createTBody();
    for (const sample of group.samples) {
      const row = body.insertRow();
      row.insertCell().append(make("pre", sample.text.trim()));
      const cells = [String(sample.times), make("span", number(sample.reward), `badge ${sample.right ? "right" : "wrong"}`),
        number(sample.weight, true)];
      for (const content of cells) {
        const cell = row.insertCell();
        cell.className = "number";
        cell.append(content);
      }
    }
    const scroll = make("div", undefined, "scroll");
    scroll.tabIndex = 0;
    scroll.append(table);
    article.append(header, scroll);
    return article;
  };

  let matches = [];
  const show = () => {
    const begin = list.childElementCount;
    list.append(...matches.slice(begin, begin + SHOWN).map(card));
    more.hidden = list.childElementCount >= matches.length;
  };
  const search = () => {
    matches = found();
    const total = matches.reduce((sum, group) =>
      sum + group.samples.reduce((times, sample) => times + sample.times, 0), 0);
    count.textContent = `${total.toLocaleString("en")} samples of ${matches.length.toLocaleString("en")} groups`;
    list.replaceChildren();
    show();
  };
  form.addEventListener("input", search);
  form.addEventListener("submit", (event) => event.preventDefault());
  more.addEventListener("click", show);
  search();
})();
