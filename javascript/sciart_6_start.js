/* Puts a panel into each tab once the page is there, and holds what the page calls.
   The other files only add to `window.sciart`, so the order in which they are loaded does not matter.
   From the host: gradioApp, onUiLoaded. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const panels = {};

    Object.assign(sciart, {
        question: (tab) => panels[tab] ? panels[tab].bridge.question() : ["{}"],
        answered: (tab, text) => panels[tab] && panels[tab].bridge.answered(text),
        recipeChanged: (tab, text) => panels[tab] && panels[tab].changed(text),
    });

    onUiLoaded(function() {
        for (const root of gradioApp().querySelectorAll(".sciart-panel")) {
            panels[root.dataset.tab] = new sciart.Panel(root.dataset.tab, root);
        }
    });
})();
