/* The numbers of a step, told beside its place in the plot: where the mouse is, where a finger has tapped, at the point
   that has the keyboard's focus, and step by step with the arrow keys while the plot itself has it. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};

    sciart.Reading = class {
        constructor(curves) {
            this.curves = curves;
            this.shown = null;  // {pass, step}, or {point} of the chosen LoRA
            this.told = dom.h("div", {class: "sciart-told sciart-hidden"});
            this.guide = sciart.plot.s("line", {class: "sciart-guide sciart-hidden", stroke: "currentColor",
                "stroke-opacity": 0.4});
            this.listen();
        }

        listen() {
            const {svg} = this.curves;
            svg.addEventListener("focusin", (event) => {
                if (!event.target.matches(":focus-visible")) return;
                const handle = event.target.closest(".sciart-handle");
                // a handle says its own weight to who cannot see
                this.told.setAttribute("aria-live", handle ? "off" : "polite");
                this.show(handle ? {point: Number(handle.dataset.point)} : {pass: 0, step: 0});
            });
            svg.addEventListener("focusout", () => this.show(null));
            svg.addEventListener("keydown", (event) => this.key(event));
            document.addEventListener("pointerdown", (event) => svg.contains(event.target) || this.show(null));
        }

        /** The pass and the step at a place of the plot; null beside both passes. */
        under(x) {
            const {frames} = this.curves;
            const pass = frames ? frames.findIndex(({left, right}) => x >= left && x <= right) : -1;
            return pass < 0 ? null : {pass, step: frames[pass].step(frames[pass].progress(x))};
        }

        /** Tells the numbers of a step, or of where a point is, until another is shown; null: nothing any more. */
        show(shown) {
            this.shown = shown;
            this.refresh();
        }

        /** Tells anew what is shown, of curves that may have changed. */
        refresh() {
            const place = this.place();
            if (!place) return this.say(null);
            const {pass, step} = place, {steps} = this.curves.frames[pass];
            const curves = this.curves.passes()[pass] || [];
            this.say(sciart.schedules.stepProgress(step, steps), [dom.t("step {0} of {1}", step + 1, steps),
                ...curves.filter(({weights}) => weights.length).flatMap(({name, weights, negative}) => [
                    `${name}: ${sciart.schedules.rounded(weights[step], 3)}`,
                    ...(negative ? [`${name}, ${dom.t("negative prompt")}: ${sciart.schedules.rounded(negative[step], 3)}`]
                        : [])])], pass);
        }

        place() {
            const {frames, width} = this.curves;
            if (!this.shown || !width || !frames) return null;
            if (this.shown.point === undefined) {
                const {pass, step} = this.shown;
                return pass < frames.length && step < frames[pass].steps ? this.shown : null;
            }
            const place = this.curves.points()[this.shown.point];
            return place ? {pass: 0, step: Math.min(frames[0].step(place[0]), frames[0].steps - 1)} : null;
        }

        /** Lines beside a place of the plot; null: nothing. */
        say(progress, lines = [], pass = 0) {
            const told = progress !== null && lines.length;
            this.told.classList.toggle("sciart-hidden", !told);
            this.guide.classList.toggle("sciart-hidden", !told);
            if (!told) return;
            const frame = this.curves.frames[pass], x = frame.x(progress);
            for (const [key, value] of Object.entries({x1: x, x2: x, y1: frame.top, y2: frame.bottom})) {
                this.guide.setAttribute(key, value);
            }
            this.told.replaceChildren(...lines.map((line) => dom.h("div", {}, line)));
            const right = x > this.curves.width / 2;
            this.told.style.left = right ? "" : `${x + 10}px`;
            this.told.style.right = right ? `${this.curves.width - x + 10}px` : "";
        }

        /** The plot's own keys, through both passes; a point that is moved by its keys is followed. */
        key(event) {
            const handle = event.target.closest(".sciart-handle");
            if (handle && event.key.startsWith("Arrow")) return this.show({point: Number(handle.dataset.point)});
            if (event.target !== this.curves.svg || event.ctrlKey || event.metaKey || event.altKey) return;
            const {frames} = this.curves, all = frames.reduce((sum, {steps}) => sum + steps, 0);
            const {pass, step} = this.place() || {pass: 0, step: 0}, now = pass ? frames[0].steps + step : step;
            const wanted = {ArrowLeft: now - 1, ArrowRight: now + 1, Home: 0, End: all - 1}[event.key];
            if (wanted === undefined) return;
            event.preventDefault();
            const next = Math.min(Math.max(wanted, 0), all - 1), first = frames[0].steps;
            this.show(next < first ? {pass: 0, step: next} : {pass: 1, step: next - first});
        }
    };
})();
