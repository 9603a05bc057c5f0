/* The tab: a picture's infotext goes to txt2img as if it had been pasted there.
   From the host: switch_to_txt2img. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};

    sciart.sendToTxt2img = function(infotext) {
        sciart.host.pasteInfotext("txt2img", infotext);
        if (typeof switch_to_txt2img === "function") switch_to_txt2img();
    };
})();
