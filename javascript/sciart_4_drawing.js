/* Drawing where a LoRA acts, over the last picture: a box, or a mask with a brush; mouse, pen, finger and keyboard. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};
    const host = sciart.host ||= {};
    const recipes = sciart.recipes ||= {};

    const TOOLS = [["box", "Box", "Drag a box"], ["brush", "Brush", "Paint where this LoRA acts"],
        ["eraser", "Eraser", "Take away what is painted"]];
    const LARGEST = 768;  // pixels a side
    const SHORTEST = 0.02;  // of a box, share of the picture
    const STEP = 0.05;  // of the keyboard

    /** The drawing surface of a panel; one row has it at a time. */
    sciart.Drawing = class {
        constructor(panel) {
            this.panel = panel;
            this.row = null;
            this.index = -1;  // of the row that has it
            this.tool = "box";
            this.size = 0.15;
            this.drag = null;
        }

        /** The button of a row that opens it. */
        button(row) {
            const open = this.index === row.index;
            return dom.button("Draw", () => this.toggle(row), {"aria-expanded": String(open), "data-draw": row.index,
                title: "Draw the region over the last picture"});
        }

        toggle(row) {
            this.index = this.index === row.index ? -1 : row.index;
            this.panel.drawRows();
            const buttons = this.panel.rows.querySelectorAll("[data-draw]");
            [...buttons].find((button) => button.dataset.draw === String(row.index)).focus({preventScroll: true});
        }

        /** A row is gone, and those after it move up. */
        removed(index) {
            if (index === this.index) this.index = -1;
            else if (index < this.index) this.index -= 1;
        }

        /** What a row has below its region: the surface, if it is that row's. */
        surface(row) {
            if (this.index !== row.index) return null;
            this.row = row;
            this.canvas = dom.h("canvas", {class: "sciart-canvas", tabindex: 0, role: "img",
                "aria-label": "Region over the last picture; arrow keys move a box, with Shift they change its size"});
            this.tools = TOOLS.map(([tool, text, title]) => dom.button(text, () => this.choose(tool),
                {title, "data-tool": tool, "aria-pressed": String(tool === this.tool)}));
            const size = dom.h("input", {type: "range", min: 2, max: 60, step: 1, value: Math.round(this.size * 100),
                "data-tool": "size", oninput: () => this.size = Number(size.value) / 100});
            const clear = dom.button("Clear", () => this.clear(), {title: "No region", "data-tool": "clear"});
            this.listen();
            this.take();
            return dom.h("div", {class: "sciart-drawing"},
                dom.h("div", {class: "sciart-line sciart-bar", role: "group", "aria-label": "Drawing"}, ...this.tools,
                    dom.labelled("Brush size", size, "sciart-brush"), clear), this.canvas);
        }

        choose(tool) {
            this.tool = tool;
            for (const button of this.tools) button.setAttribute("aria-pressed", String(button.dataset.tool === tool));
        }

        /** Begins with the tab's last picture, or an empty one of the size that is set, and the rows' regions. */
        take() {
            this.picture = host.shownPicture(this.panel.tab);
            this.source = this.picture?.src;
            const settings = host.currentSettings(this.panel.tab);
            const width = this.picture?.naturalWidth || settings.width || 1;
            const height = this.picture?.naturalHeight || settings.height || 1;
            const scale = LARGEST / Math.max(width, height);
            this.canvas.width = Math.round(width * scale);
            this.canvas.height = Math.round(height * scale);
            this.areas = this.panel.recipe.loras.map(() => new sciart.Area(width, height));
            this.panel.recipe.loras.forEach((lora, index) => this.load(index, lora.region));
            this.show();
        }

        /** Whether what it has is the tab's last picture: the page may put another into the same element. */
        isShown() {
            const picture = host.shownPicture(this.panel.tab);
            return picture === this.picture && picture?.src === this.source;
        }

        /** Shows a region that was typed or chosen. */
        load(index, region) {
            const area = this.areas[index];
            area.load(region).then(() => this.areas[index] === area && this.show());
        }

        /** A row's region has changed elsewhere. */
        changed(row) {
            if (this.row === row) this.load(row.index, row.lora.region);
        }

        get area() {
            return this.areas[this.row.index];
        }

        listen() {
            const {canvas} = this;
            canvas.addEventListener("pointerdown", (event) => this.press(event));
            canvas.addEventListener("pointermove", (event) => this.move(event));
            canvas.addEventListener("pointerup", (event) => this.isOther(event) || this.release());
            canvas.addEventListener("pointercancel", (event) => this.isOther(event) || this.cancel());
            canvas.addEventListener("pointerleave", () => this.hover(null));
            canvas.addEventListener("pointerenter", () => {
                if (!this.drag && !this.isShown()) this.take();
            });
            canvas.addEventListener("keydown", (event) => this.key(event));
        }

        /** The place under the pointer, shares of the picture. */
        at(event) {
            const bounds = this.canvas.getBoundingClientRect();
            return [(event.clientX - bounds.left) / bounds.width, (event.clientY - bounds.top) / bounds.height];
        }

        /** Of another finger than the one that draws. */
        isOther(event) {
            return this.drag !== null && event.pointerId !== this.drag.pointer;
        }

        press(event) {
            if (event.button || !event.isPrimary) return;
            event.preventDefault();
            this.canvas.focus({preventScroll: true});
            this.canvas.setPointerCapture(event.pointerId);
            const at = this.at(event);
            this.drag = {from: at, last: at, pointer: event.pointerId};
            if (this.tool !== "box") this.paint(at);
        }

        move(event) {
            if (this.isOther(event)) return;
            const at = this.at(event);
            if (!this.drag) return this.hover(event.pointerType === "touch" ? null : at);
            if (this.tool === "box") this.stretch(at);
            else {
                const passed = event.getCoalescedEvents?.() || [];
                for (const one of passed.length ? passed : [event]) this.paint(this.at(one));
            }
            this.hover(this.tool === "box" ? null : at);
        }

        paint(at) {
            this.area.stroke(this.drag.last, at, this.size, this.tool === "eraser");
            this.drag.last = at;
            this.drag.painted = true;
            this.show();
        }

        stretch(at) {
            const sides = [0, 1].map((i) => [this.drag.from[i], at[i]].map(inside).sort((a, b) => a - b));
            if (sides.some(([low, high]) => high - low < SHORTEST)) return;
            const [[x0, x1], [y0, y1]] = sides;
            this.area.setBox([x0, y0, x1, y1]);
            this.drag.painted = true;
            this.show();
        }

        release() {
            const painted = this.drag?.painted;
            this.drag = null;
            if (painted) this.hand();
        }

        cancel() {
            if (!this.drag) return;
            this.drag = null;
            this.load(this.row.index, this.row.lora.region);
        }

        clear() {
            this.area.clear();
            this.hand();
        }

        hand() {
            this.row.setRegion(this.area.region());
            this.show();
        }

        /** A box goes where the arrows say, or becomes larger and smaller at its right and its bottom. */
        key(event) {
            const across = {ArrowLeft: -STEP, ArrowRight: STEP}[event.key] || 0;
            const down = {ArrowUp: -STEP, ArrowDown: STEP}[event.key] || 0;
            if (!(across || down) || event.ctrlKey || event.metaKey || event.altKey) return;
            event.preventDefault();
            const [x0, y0, x1, y1] = this.area.box || [0.25, 0.25, 0.75, 0.75];
            const [left, right] = moved(x0, x1, across, event.shiftKey), [top, bottom] = moved(y0, y1, down, event.shiftKey);
            this.area.setBox([left, top, right, bottom]);
            this.hand();
        }

        /** Where the brush would paint; null: nowhere. */
        hover(at) {
            this.pointer = this.tool === "box" ? null : at;
            this.show();
        }

        show() {
            const {canvas, picture} = this, brush = canvas.getContext("2d"), {width, height} = canvas;
            brush.clearRect(0, 0, width, height);
            if (picture) brush.drawImage(picture, 0, 0, width, height);
            this.areas.forEach((area, index) => {
                const own = index === this.row.index;
                brush.globalAlpha = own ? 0.55 : 0.25;
                brush.drawImage(area.tinted(this.panel.color(index)), 0, 0, width, height);
                brush.globalAlpha = 1;
                if (area.box) this.outline(brush, area.box, this.panel.color(index), own);
            });
            if (this.pointer) this.ring(brush, this.pointer);
        }

        outline(brush, [x0, y0, x1, y1], color, own) {
            const {width, height} = this.canvas;
            brush.lineWidth = own ? 4 : 2;
            brush.strokeStyle = color;
            brush.setLineDash(own ? [] : [8, 8]);
            brush.strokeRect(x0 * width, y0 * height, (x1 - x0) * width, (y1 - y0) * height);
            brush.setLineDash([]);
        }

        ring(brush, [x, y]) {
            const {width, height} = this.canvas, radius = this.size * Math.min(width, height) / 2;
            for (const [color, line] of [["black", 4], ["white", 2]]) {
                brush.lineWidth = line;
                brush.strokeStyle = color;
                brush.beginPath();
                brush.arc(x * width, y * height, radius, 0, 2 * Math.PI);
                brush.stroke();
            }
        }
    };

    function inside(share) {
        return Math.round(Math.min(Math.max(share, 0), 1) * 100) / 100;
    }

    /** Both ends of a side after a step; resizes: its far end alone. */
    function moved(low, high, step, resizes) {
        if (resizes) return [low, inside(Math.max(high + step, low + STEP))];
        const way = Math.min(Math.max(step, -low), 1 - high);
        return [inside(low + way), inside(high + way)];
    }
})();
