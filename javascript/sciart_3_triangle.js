/* Mixing as a whole: a triangle for three LoRAs, a balance for two, and for any number the amount of all together.
   LoRAs with a schedule are scaled and keep its form: whoever draws curves and then mixes them expects neither to lose
   the curves nor to find the triangle shut. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};
    const plot = sciart.plot ||= {};

    const WIDTH = 172, HEIGHT = 138;
    const CORNERS = [[86, 20], [20, 118], [152, 118]];
    const NAME = 12;  // characters that have room at a corner
    const COARSE = 0.05, FINE = 0.01;
    const UNREAD = "The weights cannot be read yet";
    const NEGATIVE = "Takes weights from 0; one is negative";

    /** [x, y] of shares that sum to 1. */
    function placeOf(shares) {
        return [0, 1].map((axis) => shares.reduce((sum, share, k) => sum + share * CORNERS[k][axis], 0));
    }

    /** Shares of a place of the page; outside the triangle those of its nearest edge. */
    function sharesOf([x, y]) {
        const [[ax, ay], [bx, by], [cx, cy]] = CORNERS;
        const area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy);
        const a = ((by - cy) * (x - cx) + (cx - bx) * (y - cy)) / area;
        const b = ((cy - ay) * (x - cx) + (ax - cx) * (y - cy)) / area;
        const inside = [a, b, 1 - a - b].map((share) => share < 0.02 ? 0 : share);
        const sum = inside.reduce((total, share) => total + share, 0);
        return inside.map((share) => share / sum);
    }

    function shortened(name) {
        return name.length > NAME ? `${name.slice(0, NAME - 1)}…` : name;
    }

    sciart.Triangle = class {
        constructor(panel) {
            this.panel = panel;
            this.whole = dom.h("div", {class: "sciart-whole"});
            this.reason = dom.h("div", {class: "sciart-reason"});
            this.node = dom.h("div", {class: "sciart-mix", role: "group", "aria-label": "Mixture"}, this.whole, this.reason,
                this.drawAmount());
            this.node.addEventListener("pointerdown", () => this.hold(), true);
            this.node.addEventListener("pointerup", () => this.held = null);
            this.node.addEventListener("pointercancel", () => this.held = null);
            this.node.addEventListener("change", () => this.held = null);
        }

        loras() {
            return this.panel.recipe ? this.panel.recipe.loras : [];
        }

        drawAmount() {
            const title = "Sum of the weights; moving it scales all LoRAs in proportion";
            this.slider = dom.h("input", {type: "range", min: 0, max: 3, step: 0.05, title, "aria-label": "Amount, slider",
                oninput: () => this.setSum(this.slider.value)});
            this.amount = dom.h("input", {type: "number", min: 0, max: 10, step: 0.05, title, "data-tool": "amount",
                oninput: () => this.amount.value !== "" && this.setSum(this.amount.value)});
            const field = dom.labelled("Amount of all", this.amount, "sciart-amount");
            const pair = dom.h("div", {class: "sciart-pair"}, this.slider);
            field.append(pair);
            pair.append(this.amount);
            return field;
        }

        // what is shown

        show() {
            const loras = this.loras(), count = loras.length;
            this.node.classList.toggle("sciart-hidden", count < 2);
            if (count < 2) return;
            const amounts = sciart.mix.amountsOf(loras);
            const sum = amounts && sciart.mix.sumOf(amounts);
            const reason = !amounts ? UNREAD : amounts.some((amount) => amount < 0) ? NEGATIVE : "";
            this.reason.textContent = count <= 3 ? reason : "";
            this.slider.disabled = this.amount.disabled = !amounts;
            if (amounts) {
                this.slider.max = Math.max(3, Math.ceil(sum));
                this.slider.value = sum;
                if (document.activeElement !== this.amount) this.amount.value = sum;
            }
            this.showWhole(loras, reason ? null : amounts);
        }

        showWhole(loras, amounts) {
            const kind = {2: "balance", 3: "triangle"}[loras.length] || "";
            const names = loras.map((lora) => lora.name || lora.role || "?");
            const drawn = JSON.stringify([kind, names]);
            if (drawn !== this.drawn) {
                this.drawn = drawn;
                this.whole.replaceChildren(...(kind === "triangle" ? [this.drawTriangle(names)]
                    : kind === "balance" ? [this.drawBalance(names)] : []));
            }
            const shares = amounts && this.sharesIn(amounts);
            if (kind === "balance") {
                this.balance.disabled = !shares;
                if (shares) this.balance.value = shares[1];
            }
            if (kind === "triangle") this.placeDot(shares, amounts, names);
        }

        /** The shares of amounts; of none the last ones, so that the dot stays where it was. */
        sharesIn(amounts) {
            const sum = amounts.reduce((total, amount) => total + amount, 0);
            const last = this.last?.length === amounts.length ? this.last : amounts.map(() => 1 / amounts.length);
            return this.last = sum > 0 ? amounts.map((amount) => amount / sum) : last;
        }

        drawBalance(names) {
            this.balance = dom.h("input", {type: "range", min: 0, max: 1, step: 0.01, "data-tool": "balance",
                "aria-label": "Balance", title: "How much of the second LoRA; the sum of both stays",
                oninput: () => this.setShares([1 - this.balance.value, Number(this.balance.value)])});
            const name = (k) => dom.h("span", {class: "sciart-end", style: `--sciart-color: ${this.panel.color(k)}`,
                title: names[k]}, names[k]);
            return dom.h("div", {class: "sciart-balance"}, dom.h("span", {class: "sciart-label"}, "Balance"), this.balance,
                dom.h("div", {class: "sciart-ends"}, name(0), name(1)));
        }

        drawTriangle(names) {
            const corners = CORNERS.map(([x, y], k) => {
                const text = plot.s("text", {x: [x, 2, WIDTH - 2][k], y: k ? y + 17 : y - 9,
                    "text-anchor": ["middle", "start", "end"][k], fill: "currentColor"}, shortened(names[k]));
                return plot.s("g", {}, plot.s("title", {}, names[k]), text,
                    plot.s("circle", {cx: x, cy: y, r: 5, fill: this.panel.color(k)}));
            });
            this.dot = plot.s("g", {class: "sciart-handle sciart-dot", tabindex: 0, role: "slider", "data-tool": "triangle",
                "aria-label": "Mixture of three LoRAs", "aria-description":
                    "Arrow up: more of the first; left: of the second; right: of the third; with Shift finely"},
            plot.s("rect", {x: -16, y: -16, width: 32, height: 32, rx: 16, class: "sciart-handle-grip"}),
            plot.s("rect", {x: -7, y: -7, width: 14, height: 14, rx: 7, class: "sciart-handle-dot"}));
            const area = plot.s("polygon", {points: CORNERS.map((place) => place.join(",")).join(" "),
                class: "sciart-triangle-area"});
            const svg = plot.s("svg", {class: "sciart-triangle", width: WIDTH, height: HEIGHT, "font-size": 11.5}, area,
                ...corners, this.dot);
            this.listen(svg);
            return svg;
        }

        placeDot(shares, amounts, names) {
            const [x, y] = placeOf(shares || [1 / 3, 1 / 3, 1 / 3]);
            const told = amounts ? names.map((name, k) => `${name} ${amounts[k]}`).join(", ") : this.reason.textContent;
            for (const [key, value] of Object.entries({transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})`,
                "aria-valuemin": 0, "aria-valuemax": 1, "aria-valuenow": (shares || [0])[0].toFixed(3),
                "aria-valuetext": told, "aria-disabled": String(!shares)})) this.dot.setAttribute(key, value);
            this.dot.closest("svg").classList.toggle("sciart-muted", !shares);
        }

        // pointing and keys

        listen(svg) {
            let dragging = false;
            dom.keepTouches(svg);
            const pull = (event) => {
                const box = svg.getBoundingClientRect();
                this.setShares(sharesOf([event.clientX - box.left, event.clientY - box.top]));
            };
            svg.addEventListener("pointerdown", (event) => {
                const onDot = event.target.closest(".sciart-dot");
                if (event.button || (!onDot && event.pointerType !== "mouse") || !this.canMix()) return;
                event.preventDefault();
                this.dot.focus({preventScroll: true});
                svg.setPointerCapture(event.pointerId);
                dragging = true;
                if (!onDot) pull(event);
            });
            svg.addEventListener("pointermove", (event) => dragging && pull(event));
            for (const end of ["pointerup", "pointercancel"]) svg.addEventListener(end, () => dragging = false);
            this.dot.addEventListener("keydown", (event) => this.key(event));
        }

        key(event) {
            const corner = {ArrowUp: 0, ArrowLeft: 1, ArrowRight: 2, ArrowDown: 0}[event.key];
            if (corner === undefined || event.ctrlKey || event.metaKey || event.altKey || !this.canMix()) return;
            event.preventDefault();
            const by = (event.shiftKey ? FINE : COARSE) * (event.key === "ArrowDown" ? -1 : 1);
            const before = this.sharesIn(sciart.mix.amountsOf(this.loras()));
            const share = Math.min(Math.max(before[corner] + by, 0), 1), rest = 1 - before[corner];
            this.hold();
            this.setShares(before.map((other, k) => k === corner ? share
                : rest > 0 ? other / rest * (1 - share) : (1 - share) / 2));
            this.held = null;
        }

        canMix() {
            const amounts = sciart.mix.amountsOf(this.loras());
            return Boolean(amounts) && amounts.every((amount) => amount >= 0);
        }

        // edits

        hold() {
            this.held = sciart.mix.amountsOf(this.loras()) ? sciart.mix.held(this.loras()) : null;
            this.sum = this.held && sciart.mix.sumOf(this.held.map(({amount}) => amount));
        }

        set(amountsOf) {
            const once = !this.held;
            if (once) this.hold();
            amountsOf(this.sum, this.held.map(({amount}) => amount)).forEach((amount, k) =>
                sciart.mix.setAmount(this.held[k], amount));
            if (once) this.held = null;
            this.panel.edited();
        }

        setShares(shares) {
            this.last = shares;
            this.set((sum) => sciart.mix.amountsFor(shares, sum));
        }

        setSum(text) {
            const wanted = Math.min(Math.max(Number(text) || 0, 0), 10 * this.loras().length);
            this.set((sum, amounts) => {
                if (sum) this.parts = amounts.map((amount) => amount / sum);
                const parts = this.parts?.length === amounts.length ? this.parts : amounts.map(() => 1 / amounts.length);
                return parts.map((part) => part * wanted);
            });
        }
    };
})();
