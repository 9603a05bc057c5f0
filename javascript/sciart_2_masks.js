/* A mask from a picture file: small enough to be part of the recipe, white where the LoRA acts. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};

    const NAME = "mask picture";
    const SIDE = 64;  // what the recipe keeps

    function isMask(value) {
        return typeof value === "string" && value.startsWith("data:");
    }

    /** The picture as the text of a PNG of at most so many pixels a side. */
    async function asText(file) {
        const picture = await createImageBitmap(file);
        const scale = Math.min(SIDE / Math.max(picture.width, picture.height), 1);
        const canvas = dom.h("canvas", {width: Math.max(Math.round(picture.width * scale), 1),
            height: Math.max(Math.round(picture.height * scale), 1)});
        const brush = canvas.getContext("2d");
        brush.imageSmoothingQuality = "high";
        brush.drawImage(picture, 0, 0, canvas.width, canvas.height);
        return canvas.toDataURL("image/png");
    }

    /** A field to choose a file in; chosen(text) is told what a recipe takes, which says itself what is no picture. */
    function chooser(chosen) {
        const input = dom.h("input", {type: "file", accept: "image/*", "data-field": "mask",
            title: "A picture of any size, white where this LoRA acts, black where it does not",
            onchange: async () => {
                const [file] = input.files;
                if (file) chosen(await asText(file).catch(() => `${file.name} (no picture)`));
            }});
        return input;
    }

    sciart.masks = {NAME, SIDE, isMask, chooser};
})();
