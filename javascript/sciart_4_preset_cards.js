/* The presets as cards to choose from, each with its picture, or a drawing of its curves where it has none. A file that
   is no preset is a card too, which tells why and cannot be chosen. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};
    const plot = sciart.plot ||= {};

    const SIDE = 72, EDGE = 8;
    const STEPS = 20;  // where a preset says none

    sciart.PresetCards = class {
        constructor(panel, chosen) {
            this.panel = panel;
            this.chosen = chosen;
            this.node = dom.h("div", {class: "sciart-cards", role: "radiogroup", "aria-label": "Preset"});
        }

        get value() {
            return this.node.querySelector("input:checked")?.value;
        }

        /** Draws the presets; `name` is chosen, or the first. */
        show(presets, name) {
            const usable = presets.filter((preset) => !preset.error);
            const wanted = usable.some((preset) => preset.name === name) ? name : usable[0]?.name;
            this.node.replaceChildren(...presets.map((preset) => preset.error ? this.drawWrong(preset)
                : this.draw(preset, preset.name === wanted)));
        }

        choose(name) {
            for (const input of this.node.querySelectorAll("input:enabled")) input.checked = input.value === name;
        }

        draw(preset, checked) {
            const input = dom.h("input", {type: "radio", name: this.panel.id("preset"), value: preset.name, checked,
                onchange: () => this.chosen()});
            const picture = preset.thumbnail
                ? dom.h("img", {src: preset.thumbnail, alt: "", width: SIDE, height: SIDE, draggable: "false"})
                : this.drawCurves(preset.recipe.loras || [], preset.txt2img?.steps ?? STEPS);
            const title = preset.title || preset.name;
            return dom.h("label", {class: "sciart-preset", title: [title, preset.thumbnail_error].filter(Boolean).join("\n")},
                input, picture, dom.h("span", {}, title));
        }

        drawWrong({name, error}) {
            const input = dom.h("input", {type: "radio", name: this.panel.id("preset"), value: name, disabled: true});
            return dom.h("label", {class: "sciart-preset sciart-wrong", title: error}, input,
                dom.h("p", {}, error), dom.h("span", {}, name));
        }

        drawCurves(loras, steps) {
            const shapes = loras.map((lora) => sciart.schedules.shapeOf(lora)).filter(Boolean)
                .map((shape) => sciart.schedules.placed(shape, steps));
            const most = Math.max(1, ...shapes.map((shape) => Math.abs(sciart.schedules.largest(shape))));
            const room = SIDE - 2 * EDGE;
            const lines = shapes.map((shape, k) => plot.s("polyline", {fill: "none", "stroke-width": 2,
                stroke: this.panel.color(k), points: plot.corners(shape).map(([progress, weight]) =>
                    `${(EDGE + progress * room).toFixed(1)},${(SIDE - EDGE - Math.max(weight, 0) / most * room).toFixed(1)}`)
                    .join(" ")}));
            return plot.s("svg", {class: "sciart-drawn", width: SIDE, height: SIDE, "aria-hidden": "true"}, ...lines);
        }
    };
})();
