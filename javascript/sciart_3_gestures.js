/* Gestures in the plot: the mouse, a finger and the keyboard move points, add them and take them out. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};

    const OUT = 36;  // pixels beyond the plot at which a dragged point is taken out
    const NEAR = 12;  // pixels from the line within which a point is added on it
    const COARSE = 0.05, FINE = 0.01;

    sciart.Gestures = class {
        constructor(curves) {
            this.curves = curves;
            this.drag = null;
            this.listen();
        }

        listen() {
            const svg = this.curves.svg;
            svg.addEventListener("pointerdown", (event) => this.press(event));
            const touch = (event) => event.pointerType === "touch";  // a finger hovers nowhere: it taps
            svg.addEventListener("pointermove", (event) => this.drag ? this.pull(event) : touch(event) || this.hover(event));
            svg.addEventListener("pointerup", (event) => {
                this.release();
                if (touch(event)) this.hover(event);
            });
            svg.addEventListener("pointercancel", () => this.cancel());
            svg.addEventListener("pointerleave", (event) => this.drag || touch(event) || this.curves.reading.show(null));
            dom.keepTouches(svg);
            svg.addEventListener("dblclick", (event) => this.twice(event));
            // not on the handles' group: what listens for the focus in an SVG takes it, too
            svg.addEventListener("keydown", (event) => this.key(event));
            svg.addEventListener("focusin", (event) => {
                const handle = event.target.closest(".sciart-handle");
                if (handle) this.curves.active = Number(handle.dataset.point);
            });
        }

        /** [progress, weight] under the pointer, and its place on the plot. */
        at(event) {
            const box = this.curves.svg.getBoundingClientRect(), frame = this.curves.frames[0];
            const x = event.clientX - box.left, y = event.clientY - box.top;
            return {x, y, point: [frame.progress(x), frame.weight(y)]};
        }

        snapped([progress, weight], event) {
            const unit = event.shiftKey || this.curves.snap.value === "fine" ? FINE : COARSE;
            const round = (value, step) => sciart.schedules.rounded(Math.round(value / step) * step);
            const place = this.curves.snap.value === "steps" ? this.onStep(progress) : round(progress, unit);
            return [place, round(weight, unit)];
        }

        /** A step's progress, rounded down: what changes at it must not come one step later. */
        onStep(progress) {
            const exact = sciart.schedules.stepProgress(this.curves.frames[0].step(progress), this.curves.steps());
            return Math.floor(exact * 10000 + 1e-6) / 10000;
        }

        press(event) {
            if (event.button) return;
            const handle = event.target.closest(".sciart-handle");
            const line = event.target.closest("[data-curve]");
            if (!handle && line) this.curves.panel.choose(Number(line.dataset.curve));
            const shape = this.curves.shape();
            const whole = !handle && line && shape?.constant && event.pointerType === "mouse";
            if (!shape || (!handle && !whole)) return;
            event.preventDefault();
            const index = handle ? Number(handle.dataset.point) : 0;
            this.curves.active = index;
            (handle || this.curves.handles.firstChild).focus({preventScroll: true});
            this.drag = {index, shape, before: structuredClone(this.curves.loras()[this.curves.chosen]), moved: false,
                x: event.clientX, y: event.clientY};
            this.curves.svg.setPointerCapture(event.pointerId);
        }

        pull(event) {
            const {drag} = this;
            if (!drag.moved && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < 3) return;
            drag.moved = true;
            const {x, y, point} = this.at(event), frame = this.curves.frames[0];
            drag.leaving = !drag.shape.constant && (y < frame.top - OUT || y > frame.bottom + OUT ||
                x < frame.left - OUT || x > frame.right + OUT);
            const weight = Math.min(Math.max(point[1], frame.low), frame.high);
            this.curves.move(drag.index, this.snapped([point[0], weight], event), drag.shape);
            const now = this.curves.shape();
            const [progress, told] = now.constant ? [point[0], now.points[0][1]] : now.points[drag.index];
            this.curves.reading.say(progress, drag.leaving ? ["let go to take the point out"]
                : [now.constant ? `${told}` : this.curves.tell(progress, told)]);
        }

        release() {
            const {drag} = this;
            if (!drag) return;
            this.drag = null;
            this.curves.reading.show(null);
            if (drag.leaving) this.curves.remove(drag.index);
            else if (drag.moved) this.curves.show();
        }

        cancel() {
            if (!this.drag) return;
            const {before} = this.drag;
            this.drag = null;
            this.curves.reading.show(null);
            this.curves.edit((lora) => {
                for (const key of Object.keys(lora)) delete lora[key];
                Object.assign(lora, before);
            });
        }

        twice(event) {
            // the event's own target is the plot, which has captured the pointer
            const handle = document.elementFromPoint(event.clientX, event.clientY)?.closest(".sciart-handle");
            if (handle && !this.curves.shape()?.constant) return this.curves.remove(Number(handle.dataset.point));
            const shape = this.curves.shape(), {x, y, point} = this.at(event), frame = this.curves.frames[0];
            if (!shape || x > frame.right || y < frame.top || y > frame.bottom) return;
            const own = sciart.schedules.weightAt(shape, point[0]);
            const [place, weight] = this.snapped(point, event);
            this.curves.addAt([place, Math.abs(frame.y(own) - y) < NEAR ? sciart.schedules.rounded(
                sciart.schedules.weightAt(shape, place), 2) : weight]);
        }

        hover(event) {
            if (this.curves.frames && this.curves.width) this.curves.reading.show(this.curves.reading.under(this.at(event).x));
        }

        // the keyboard

        key(event) {
            const handle = event.target.closest(".sciart-handle");
            if (!handle || event.ctrlKey || event.metaKey || event.altKey) return;
            const i = Number(handle.dataset.point), shape = this.curves.shape();
            const unit = event.shiftKey || this.curves.snap.value === "fine" ? FINE : COARSE;
            const [progress, weight, inSteps] = shape.points[Math.min(i, shape.points.length - 1)];
            const sides = {ArrowLeft: -1, ArrowRight: 1}[event.key], up = {ArrowUp: 1, ArrowDown: -1}[event.key];
            if (sides && (inSteps || this.curves.snap.value === "steps")) {
                const at = this.curves.frames[0].step(progress) + sides;
                this.curves.move(i, [this.onStep(sciart.schedules.stepProgress(at, this.curves.steps())), weight], shape);
            } else if (sides) this.curves.move(i, [sciart.schedules.rounded(progress + sides * unit), weight], shape);
            else if (up) this.curves.move(i, [progress, sciart.schedules.rounded(weight + up * unit)], shape);
            else if (event.key === "Delete" || event.key === "Backspace") this.curves.remove(i);
            else if (event.key === "Insert" || event.key === "Enter") this.curves.add();
            else return;
            event.preventDefault();
        }
    };
})();
