// What a mark says when it is pointed at: its <title>, which browsers show late and keyboards never.
(() => {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("aria-hidden", "true"); // the mark's own label says the same
  document.body.append(tip);
  let shown = null;
  const place = () => {
    if (!shown) return;
    const at = shown.getBoundingClientRect();
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    const above = at.top - tip.offsetHeight - 8;
    tip.style.left = `${Math.max(8, Math.min(at.left + at.width / 2 - tip.offsetWidth / 2, room))}px`;
    tip.style.top = `${above > 0 ? above : at.bottom + 8}px`;
  };
  const show = (mark) => {
    shown = mark;
    tip.hidden = !mark;
    if (mark) tip.textContent = mark.getAttribute("aria-label");
    place();
  };
  for (const mark of document.querySelectorAll(".point")) {
    const title = mark.querySelector("title");
    mark.setAttribute("aria-label", title.textContent);
    title.remove(); // or the browser would show it too
    for (const event of ["pointerenter", "focus"]) mark.addEventListener(event, () => show(mark));
    for (const event of ["pointerleave", "blur"]) mark.addEventListener(event, () => show(null));
  }
  addEventListener("scroll", place, { passive: true });
  addEventListener("keydown", (event) => { if (event.key === "Escape") show(null); });
})();
