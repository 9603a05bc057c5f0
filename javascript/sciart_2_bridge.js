/* Asking Python: what the panel does not know itself it asks through one hidden button of gradio's. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const host = sciart.host ||= {};

    const ANSWER_TIMEOUT = 60000;

    /** Carries questions through the tab's hidden button, one at a time: gradio drops a click while one is pending. */
    sciart.Bridge = class {
        constructor(tab) {
            this.tab = tab;
            this.waiting = [];
            this.current = null;
            this.count = 0;
        }

        ask(action, fields) {
            return new Promise((resolve) => {
                if (action === "preview") this.drop("preview");
                this.waiting.push({id: ++this.count, action, fields, resolve});
                this.next();
            });
        }

        /** Only the newest preview is of interest. */
        drop(action) {
            this.waiting.filter((one) => one.action === action).forEach((one) => one.resolve(null));
            this.waiting = this.waiting.filter((one) => one.action !== action);
        }

        next() {
            if (this.current || !this.waiting.length) return;
            this.current = this.waiting.shift();
            this.timer = setTimeout(() => this.finish({error: "SciArt: no answer from the WebUI"}), ANSWER_TIMEOUT);
            host.find(`#sciart_${this.tab}_ask`).click();
        }

        question() {
            if (!this.current) return ["{}"];
            return [JSON.stringify({id: this.current.id, action: this.current.action, ...this.current.fields})];
        }

        answered(text) {
            let answer = {};
            try {
                answer = JSON.parse(text);
            } catch (error) {
                // an empty answer: the very first question failed
            }
            if (!this.current) return;
            const failure = {error: "SciArt could not answer; the WebUI's console says why"};
            this.finish(answer.id === this.current.id ? answer : failure);
        }

        finish(answer) {
            clearTimeout(this.timer);
            const {resolve} = this.current;
            this.current = null;
            resolve(answer);
            setTimeout(() => this.next());
        }
    };
})();
