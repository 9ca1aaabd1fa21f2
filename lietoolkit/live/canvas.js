// A picture painted by the kernel. When it may be dragged, it reports where the pointer is, as
// fractions of its width and height from the top left corner.
function render({ model, el }) {
  const image = document.createElement("img");
  image.className = "lietoolkit-canvas";
  image.draggable = false;
  el.appendChild(image);

  let shown = null;
  function paint() {
    const next = URL.createObjectURL(new Blob([model.get("png")], { type: "image/png" }));
    const old = shown;
    image.onload = () => old && URL.revokeObjectURL(old);
    image.src = next;
    shown = next;
  }
  function caption() {
    image.alt = model.get("alt");
  }

  let waiting = null;
  function report(event) {
    const box = image.getBoundingClientRect();
    const point = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
    if (waiting === null) {
      // One message a frame: the kernel must not fall behind the hand.
      requestAnimationFrame(() => {
        model.set("point", waiting);
        model.save_changes();
        waiting = null;
      });
    }
    waiting = point;
  }
  if (model.get("draggable")) {
    image.classList.add("lietoolkit-draggable");
    image.addEventListener("pointerdown", (event) => {
      image.setPointerCapture(event.pointerId);
      report(event);
    });
    image.addEventListener("pointermove", (event) => {
      if (image.hasPointerCapture(event.pointerId)) report(event);
    });
  }

  model.on("change:png", paint);
  model.on("change:alt", caption);
  paint();
  caption();
  return () => shown && URL.revokeObjectURL(shown);
}
export default { render };
