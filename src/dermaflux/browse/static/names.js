// What Datasette's pages lack for screen readers: a language, a main part, names of the controls.
const NAMES = {
  'select[name^="_filter_column"]': "Column to filter by",
  'select[name^="_filter_op"]': "Comparison",
  'input[name^="_filter_value"]': "Value to compare with",
  'select[name="_sort"]': "Column to sort by",
  ".CodeMirror textarea": "SQL query",
  "#sql-editor": "SQL query",
  ".facet-info a.cross": "Remove this filter",
};

document.documentElement.lang = "en";
// After the page's own handlers of the event, one of which makes the SQL editor.
window.addEventListener("load", () => setTimeout(() => {
  document.querySelector("section.content")?.setAttribute("role", "main");
  document.querySelectorAll(".not-footer > p").forEach((each) => {
    each.setAttribute("role", "alert"); // it stands before the main part
  });
  document.querySelectorAll(".table-wrapper").forEach((each) => {
    each.tabIndex = 0; // so that the keyboard scrolls it
    each.setAttribute("role", "region");
    each.setAttribute("aria-label", "Table");
  });
  for (const [controls, name] of Object.entries(NAMES)) {
    document.querySelectorAll(controls).forEach((each) => each.setAttribute("aria-label", name));
  }
  // Headings follow the first one without a step left out.
  document.querySelectorAll("h1 ~ h3, .content > form h3, .content > h3").forEach((each) => {
    each.setAttribute("aria-level", "2");
  });
}));
