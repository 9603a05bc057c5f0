/* An area of a picture as one draws it: a box, or a mask that is painted. As transparent as it does not count. */
(function() {
    "use strict";

    const sciart = window.sciart ||= {};
    const dom = sciart.dom ||= {};

    const FAINTEST = 9;  // of 255: what is darker Python takes for black

    sciart.Area = class {
        /** width, height: of the picture, whose shape the mask has. */
        constructor(width, height) {
            const scale = sciart.masks.SIDE / Math.max(width, height);
            this.canvas = dom.h("canvas", {width: Math.max(Math.round(width * scale), 1),
                height: Math.max(Math.round(height * scale), 1)});
            this.brush = this.canvas.getContext("2d", {willReadFrequently: true});
            this.box = null;
            this.changes = 0;  // how often it was drawn in
        }

        get width() {
            return this.canvas.width;
        }

        get height() {
            return this.canvas.height;
        }

        clear() {
            this.changes += 1;
            this.box = null;
            this.brush.globalCompositeOperation = "source-over";
            this.brush.clearRect(0, 0, this.width, this.height);
        }

        /** Takes the region of a recipe: a box, the text of a picture, or nothing. What cannot be read is nothing; what
            is drawn while it is read stays. */
        async load(region) {
            if (sciart.masks.isMask(region)) {
                const picture = new Image(), before = this.changes;
                picture.src = region;
                const known = await picture.decode().then(() => true, () => false);
                if (this.changes !== before) return;
                this.clear();
                if (known) this.fillWith(picture);
                return;
            }
            this.clear();
            if (isBox(region)) this.setBox(region);
        }

        /** A picture whose brightness is how much each place counts. */
        fillWith(picture) {
            const {brush, width, height} = this;
            brush.fillStyle = "black";
            brush.fillRect(0, 0, width, height);
            brush.drawImage(picture, 0, 0, width, height);
            const pixels = brush.getImageData(0, 0, width, height);
            for (let i = 0; i < pixels.data.length; i += 4) {
                pixels.data[i + 3] = (pixels.data[i] + pixels.data[i + 1] + pixels.data[i + 2]) / 3;
                pixels.data[i] = pixels.data[i + 1] = pixels.data[i + 2] = 255;
            }
            brush.putImageData(pixels, 0, 0);
        }

        /** [x0, y0, x1, y1], shares of the picture. */
        setBox(box) {
            this.clear();
            this.box = box;
            const [x0, y0, x1, y1] = box;
            this.brush.fillStyle = "white";
            this.brush.fillRect(x0 * this.width, y0 * this.height, (x1 - x0) * this.width, (y1 - y0) * this.height);
        }

        /** Paints from one place to another, shares of the picture; diameter: share of its shorter side. A box becomes a
            mask. */
        stroke([x0, y0], [x1, y1], diameter, erases) {
            const {brush} = this;
            this.changes += 1;
            this.box = null;
            brush.globalCompositeOperation = erases ? "destination-out" : "source-over";
            brush.strokeStyle = "white";
            brush.lineCap = "round";
            brush.lineWidth = Math.max(diameter * Math.min(this.width, this.height), 1);
            brush.beginPath();
            brush.moveTo(x0 * this.width, y0 * this.height);
            brush.lineTo(x1 * this.width + 0.01, y1 * this.height);  // a line of no length would not be drawn
            brush.stroke();
        }

        isEmpty() {
            const {data} = this.brush.getImageData(0, 0, this.width, this.height);
            return data.every((value, i) => i % 4 < 3 || value < FAINTEST);
        }

        /** What a recipe takes: a box, the text of a PNG, white where it counts, or undefined for nothing. */
        region() {
            if (this.box) return this.box;
            if (this.isEmpty()) return undefined;
            const opaque = dom.h("canvas", {width: this.width, height: this.height}), brush = opaque.getContext("2d");
            brush.fillRect(0, 0, this.width, this.height);
            brush.drawImage(this.canvas, 0, 0);
            return opaque.toDataURL("image/png");
        }

        /** The same in a colour. */
        tinted(color) {
            const tint = dom.h("canvas", {width: this.width, height: this.height}), brush = tint.getContext("2d");
            brush.drawImage(this.canvas, 0, 0);
            brush.globalCompositeOperation = "source-in";
            brush.fillStyle = color;
            brush.fillRect(0, 0, this.width, this.height);
            return tint;
        }
    };

    function isBox(region) {
        return Array.isArray(region) && region.length === 4 && region.every(Number.isFinite);
    }
})();
