/* What was edited, to go back and forth in: the recipe's texts. One gesture (a drag, a word typed) is one of them. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};

    const KEPT = 200;
    const TYPED_IN = "textarea, input[type=text], input[type=number]";

    sciart.History = class {
        constructor(text, restore) {
            this.restore = restore;
            this.now = text;
            this.past = [];
            this.future = [];
            this.within = false;
            this.buttons = [];
        }

        /** Follows the gestures in `root`, and Ctrl+Z and Ctrl+Shift+Z there; fields that are typed in have their own. */
        watch(root) {
            for (const event of ["pointerup", "focusout", "change"]) root.addEventListener(event, () => this.close());
            root.addEventListener("keydown", (event) => {
                const typing = event.target.matches(TYPED_IN);
                if (!event.repeat && !typing) this.close();
                const key = event.key.toLowerCase();
                if (!(event.ctrlKey || event.metaKey) || event.altKey || !["z", "y"].includes(key)) return;
                if (typing) return;
                event.preventDefault();
                this.go(key === "y" || event.shiftKey ? "future" : "past");
            });
        }

        record(text) {
            if (text === this.now) return;
            if (!this.within) this.past.push(this.now);
            this.past.splice(0, this.past.length - KEPT);
            this.within = true;
            this.now = text;
            this.future = [];
            this.show();
        }

        /** What comes next is another gesture. */
        close() {
            if (this.within && this.past[this.past.length - 1] === this.now) this.past.pop();
            this.within = false;
            this.show();
        }

        go(where) {
            this.close();
            if (!this[where].length) return;
            this[where === "past" ? "future" : "past"].push(this.now);
            this.now = this[where].pop();
            this.restore(this.now);
            this.show();
        }

        drawButtons() {
            const draw = (sign, title, where) => sciart.dom.button(sign, () => this.go(where),
                {class: "sciart-button sciart-tool", title, "aria-label": title, "data-history": where});
            this.buttons = [draw("↶", "Undo (Ctrl+Z)", "past"), draw("↷", "Redo (Ctrl+Shift+Z)", "future")];
            this.show();
            return this.buttons;
        }

        /** Buttons that can do nothing say so, but keep the focus. */
        show() {
            for (const button of this.buttons) {
                button.setAttribute("aria-disabled", String(!this[button.dataset.history].length));
            }
        }
    };
})();
