// Regions that scroll sideways can be reached and moved with the keyboard; which they are depends on the width.
// The theme does the same for code and its own tables.
(function () {
  const selector = ".drawing, .bd-article div.math, .bd-article div.cell_output";
  function mark() {
    for (const region of document.querySelectorAll(selector)) {
      if (region.scrollWidth > region.clientWidth + 1) region.tabIndex = 0;
      else region.removeAttribute("tabindex");
    }
  }
  document.addEventListener("DOMContentLoaded", mark);
  window.addEventListener("load", mark);
  window.addEventListener("resize", mark);
})();
