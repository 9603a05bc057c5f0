/* The tab: infotexts from txt2img and to it, as if they had been pasted there, the way to its pipelines, and reports in
   the page's theme.
   From the host: switch_to_txt2img. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};

    const SEEN = 450;  // pixels of a report: what to say of each LoRA, and the first heatmaps

    sciart.sendToTxt2img = function(infotext) {
        sciart.host.pasteInfotext("txt2img", infotext);
        if (typeof switch_to_txt2img === "function") switch_to_txt2img();
    };

    /** What txt2img would make now: its prompt, its settings, its panel's recipe. */
    sciart.infotextOfTxt2img = function() {
        const recipe = sciart.host.find("#sciart_txt2img_recipe textarea");
        return sciart.host.infotext("txt2img", sciart.host.currentSettings("txt2img"), undefined, recipe.value);
    };

    /** Opens the tab where pipelines are. */
    sciart.openPipelines = function() {
        for (const [place, title] of [["#tabs", "SciArt"], ["#sciart_tabs", "Pipeline"]]) {
            const titles = [title, sciart.dom.t(title)];
            const buttons = [...document.querySelectorAll(`${place} > .tab-nav button`)];
            buttons.find((button) => titles.includes(button.textContent.trim()))?.click();
        }
    };

    /** A report in its frame is light or dark as the page around it is. It comes into view where little of it is seen,
        but not away from what somebody is typing. */
    sciart.reportLoaded = function(frame) {
        const dark = document.body.classList.contains("dark");
        frame.contentDocument.documentElement.style.colorScheme = dark ? "dark" : "light";
        const seen = window.innerHeight - frame.getBoundingClientRect().top;
        if (seen < SEEN && !document.activeElement.matches("textarea, input")) frame.scrollIntoView({block: "nearest"});
    };
})();
