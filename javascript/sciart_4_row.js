/* The widgets of one LoRA of the recipe. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};
    const recipes = sciart.recipes ||= {};

    const APPLY_TO = {both: "prompt and negative", cond: "prompt only", uncond: "negative only"};
    const BLOCKS = {in: "Factor for the UNet's input blocks", mid: "Factor for the UNet's middle block",
        out: "Factor for the UNet's output blocks"};

    function regionText(region) {
        if (Array.isArray(region)) return region.join(" ");
        return sciart.masks.isMask(region) ? sciart.masks.NAME : region ?? "";
    }

    sciart.Row = class {
        constructor(panel, lora, index) {
            this.panel = panel;
            this.lora = lora;
            this.index = index;
            this.lastWeight = typeof lora.weight === "number" ? lora.weight : recipes.largestWeight(lora.schedule);
            this.node = this.draw();
            this.showWhichWins();
        }

        draw() {
            const title = dom.t("LoRA {0}", this.index + 1);
            return dom.h("div", {class: "sciart-row", role: "group", "aria-label": title, "data-index": this.index,
                style: `--sciart-color: ${this.panel.color(this.index)}`},
            dom.h("div", {class: "sciart-line"}, this.drawName(title), this.drawWeight(), this.drawRemove()),
            this.drawSubject(), this.drawCard(), this.drawMore());
        }

        /** What kind of file it is, and whether it fits the model; has its room while there is nothing to say. */
        drawCard() {
            this.card = dom.h("div", {class: "sciart-card"});
            this.showCard();
            return this.card;
        }

        showCard() {
            const {name, role} = this.lora;
            this.panel.cards.show(this.card, name ?? this.panel.presets.choices.bindings[role]);
        }

        /** Follows what was edited elsewhere: in the plot, or for all LoRAs together. */
        refresh() {
            const {weight, schedule, curve} = this.lora;
            this.schedule.value = recipes.scheduleText(schedule);
            this.curve.value = curve || "linear";
            if (typeof weight === "number") this.lastWeight = weight;
            else if (sciart.schedules.shapeOf(this.lora)) this.lastWeight = recipes.largestWeight(schedule);
            this.showWeight(this.lastWeight);
            this.showWhichWins();
        }

        /** What the LoRA is about and where it acts; where all LoRAs act all over the picture nobody asks. */
        drawSubject() {
            const {compose} = this.panel.recipe;
            if (compose !== "contrastive" && compose !== "masked") {
                return compose === "regions" || this.lora.region !== undefined
                    ? this.besideDrawing(...this.drawRegion("everywhere")) : null;
            }
            const field = (key, placeholder, title) => {
                const input = dom.h("input", {type: "text", value: this.lora[key], placeholder, title,
                    "data-field": key, autocomplete: "off",
                    oninput: () => this.set(key, input.value.trim() || undefined)});
                return input;
            };
            return this.besideDrawing(
                dom.labelled("Subject", field("subject", "none: a style, acts everywhere",
                    "Words of the prompt that this LoRA is about"), "sciart-medium"),
                dom.labelled("Trigger words", field("trigger", "before the subject",
                    "Words that go before the subject in this LoRA's own prompt"), "sciart-medium"),
                ...this.drawRegion("found by itself"));
        }

        besideDrawing(...fields) {
            return dom.h("div", {class: "sciart-place"}, dom.h("div", {class: "sciart-line"}, ...fields),
                this.panel.drawing.surface(this));
        }

        /** A box that is typed, a picture that is white where the LoRA acts, or what is drawn. */
        drawRegion(placeholder) {
            const input = dom.h("input", {type: "text", value: regionText(this.lora.region), placeholder, "data-field": "region",
                autocomplete: "off", title: "Box: left, top, right and bottom as shares of the picture, 0 0 0.5 1",
                oninput: () => {
                    const numbers = input.value.split(/[\s,]+/).filter(Boolean);
                    this.set("region", numbers.length ? numbers.map((text) => isNaN(text) ? text : Number(text)) : undefined);
                    this.panel.drawing.changed(this);
                }});
            this.region = input;
            const mask = sciart.masks.chooser((text) => {
                this.setRegion(text);
                this.panel.drawing.changed(this);
            });
            return [dom.labelled("Region", input, "sciart-medium"), dom.labelled("or a mask", mask, "sciart-medium"),
                this.panel.drawing.button(this)];
        }

        /** A box, the text of a picture, or undefined. */
        setRegion(region) {
            this.region.value = regionText(region);
            this.set("region", region);
        }

        drawName(title) {
            if (this.lora.role !== undefined && this.lora.name === undefined) {
                const binding = this.panel.presets.roles.drawBinding(this.lora.role);
                return dom.labelled(dom.t("{0}: role “{1}”", title, this.lora.role), binding, "sciart-name");
            }
            const input = dom.h("input", {type: "text", value: this.lora.name, list: this.panel.id("names"),
                "data-field": "name", placeholder: "name of a LoRA", autocomplete: "off", spellcheck: "false",
                oninput: () => {
                    this.set("name", input.value.trim() || undefined);
                    this.showCard();
                }});
            return dom.labelled(title, input, "sciart-name");
        }

        drawRemove() {
            return dom.button("✕", () => this.panel.remove(this.index), {class: "sciart-button sciart-tool",
                title: "Remove", "aria-label": dom.t("Remove LoRA {0}", this.index + 1)});
        }

        drawWeight() {
            const id = this.panel.id(`weight_${this.index}`);
            this.slider = dom.h("input", {type: "range", min: -1, max: 2, step: 0.05, "aria-label": "Weight, slider",
                oninput: () => this.setWeight(this.slider.value)});
            this.number = dom.h("input", {type: "number", min: -10, max: 10, step: 0.05, id, "data-field": "weight",
                oninput: () => this.setWeight(this.number.value)});
            this.weightLabel = dom.h("label", {class: "sciart-label", for: id}, "Weight");
            this.weight = dom.h("div", {class: "sciart-field sciart-weight"},
                this.weightLabel, dom.h("div", {class: "sciart-pair"}, this.slider, this.number));
            this.showWeight(this.lastWeight);
            return this.weight;
        }

        drawSchedule() {
            this.schedule = dom.h("input", {type: "text", value: recipes.scheduleText(this.lora.schedule),
                "data-field": "schedule", placeholder: "0.2@0, 0.65@0.5", autocomplete: "off", spellcheck: "false",
                title: "WEIGHT@PROGRESS, ...; progress runs from 0, the first step, to 1, the last; WEIGHT@s5 is step 5",
                oninput: () => this.setSchedule(this.schedule.value.trim())});
            return dom.labelled("Schedule (weight@progress)", this.schedule, "sciart-schedule");
        }

        drawCurve() {
            this.curve = dom.h("select", {"data-field": "curve", title: "Between the points of the schedule",
                onchange: () => this.set("curve", this.curve.value)},
            ...dom.options(["linear", "step", "cosine"].map((name) => [name, name]), this.lora.curve || "linear"));
            return dom.labelled("Curve", this.curve, "sciart-small");
        }

        drawTextEncoder() {
            return dom.labelled("Text encoder", this.numberInput("te_weight", this.lora.te_weight, "automatic",
                "Weight in the text encoder; empty: the weight, or the largest of the schedule",
                (value) => this.set("te_weight", value)), "sciart-small");
        }

        numberInput(field, value, placeholder, title, change) {
            const input = dom.h("input", {type: "number", min: -10, max: 10, step: 0.05, value, placeholder, title,
                "data-field": field, oninput: () => change(input.value === "" ? undefined : Number(input.value))});
            return input;
        }

        drawMore() {
            const {apply_to: applyTo, blocks, hires, negative} = this.lora;
            const where = dom.h("select", {"data-field": "apply_to", onchange: () => this.set("apply_to", where.value)},
                ...dom.options(Object.entries(APPLY_TO), applyTo || "both"));
            const without = dom.h("input", {type: "text", value: recipes.partText(negative), "data-field": "negative",
                autocomplete: "off", placeholder: "as in the prompt",
                title: "A weight or a schedule for the negative prompt; empty: the prompt's",
                oninput: () => this.set("negative", recipes.partFromText(without.value, this.lora.negative))});
            const late = dom.h("input", {type: "text", value: recipes.partText(hires), "data-field": "hires",
                autocomplete: "off", placeholder: "as at the end",
                title: "A weight or a schedule for the hires pass; empty: the weight it ended with",
                oninput: () => this.set("hires", recipes.partFromText(late.value, this.lora.hires))});
            const given = recipes.isObject(blocks) ? blocks : {};
            const factors = Object.entries(BLOCKS).map(([key, text]) => this.numberInput(`blocks.${key}`,
                given[key], `${key} 1`, text, (value) => this.setBlock(key, value)));
            factors.forEach((factor) => factor.setAttribute("aria-label", factor.title));
            const all = dom.h("input", {type: "text", value: recipes.blocksText(blocks), "data-field": "blocks",
                autocomplete: "off", placeholder: "1,0,0.5,… or {\"OUT03\": 0.5}",
                title: "12, 17, 20 or 26 block weights; or factors of blocks (BASE, IN00 to OUT11) and kinds " +
                    "(attention, feed_forward, convolution) as JSON, numbers or schedules",
                oninput: () => this.set("blocks", recipes.blocksFromText(all.value, this.lora.blocks))});
            const used = ["te_weight", "apply_to", "blocks", "negative", "hires"].some((key) =>
                key in recipes.loraWithoutDefaults(this.lora));
            return dom.h("details", {class: "sciart-fold sciart-more", open: used}, dom.h("summary", {}, "More"),
                dom.h("div", {class: "sciart-line"}, this.drawSchedule(), this.drawCurve(), this.drawTextEncoder()),
                dom.h("div", {class: "sciart-line"},
                    dom.labelled("Apply to", where, "sciart-medium"),
                    dom.labelled("Negative prompt's weight", without, "sciart-medium"),
                    dom.labelled("Hires weight or schedule", late, "sciart-medium"),
                    this.drawGroup("Block factors", factors),
                    dom.labelled("Block weights", all, "sciart-medium")));
        }

        drawGroup(text, inputs) {
            return dom.h("div", {class: "sciart-field sciart-medium sciart-blocks", role: "group", "aria-label": text},
                dom.h("span", {class: "sciart-label"}, text), dom.h("div", {class: "sciart-pair"}, ...inputs));
        }

        set(key, value) {
            this.lora[key] = value;
            this.panel.write();
        }

        setBlock(key, value) {
            const blocks = {...(recipes.isObject(this.lora.blocks) ? this.lora.blocks : {}), [key]: value};
            if (value === undefined || value === 1) delete blocks[key];
            this.set("blocks", blocks);
        }

        /** A weight replaces the schedule. */
        setWeight(text) {
            const weight = text === "" ? undefined : Number(text);
            if (weight !== undefined) this.lastWeight = weight;
            this.showWeight(text);
            this.schedule.value = "";
            this.lora.schedule = undefined;
            this.lora.curve = undefined;
            this.curve.value = "linear";
            this.showWhichWins();
            this.set("weight", weight);
        }

        /** A schedule replaces the weight; without one the weight before it counts again. */
        setSchedule(text) {
            this.lora.weight = text ? undefined : this.lastWeight;
            this.lora.schedule = text || undefined;
            this.showWhichWins();
            this.panel.write();
        }

        showWeight(value) {
            if (document.activeElement !== this.number) this.number.value = value;
            if (value !== "") this.slider.value = value;
        }

        showWhichWins() {
            const scheduled = Boolean(this.schedule.value.trim());
            this.weight.classList.toggle("sciart-muted", scheduled);
            this.weight.title = scheduled ? dom.t("The schedule is used. Moving the weight removes the schedule.") : "";
            this.weightLabel.textContent = scheduled ? "Weight (the schedule is used)" : "Weight";
            this.curve.disabled = !scheduled;
        }
    };
})();
