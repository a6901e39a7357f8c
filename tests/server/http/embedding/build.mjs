// Bundles the examples of docs/embed.md, PictureSearch.jsx and PictureSearch.vue, each with a page's few lines around it:
//   node build.mjs        (react.js and vue.js for a browser, server.js for Node)
import { build } from "esbuild";
import { readFile } from "node:fs/promises";
import { compileScript, parse } from "vue/compiler-sfc";

const vue = {
  name: "vue",
  setup({ onLoad }) {
    onLoad({ filter: /\.vue$/ }, async ({ path }) => {
      const { descriptor } = parse(await readFile(path, "utf8"), { filename: path });
      const compilerOptions = { isCustomElement: (tag) => tag === "twinlens-search" };
      const options = { id: "example", inlineTemplate: true, templateOptions: { compilerOptions } };
      return { contents: compileScript(descriptor, options).content, loader: "js" };
    });
  },
};

const common = { bundle: true, format: "esm", jsx: "automatic", plugins: [vue], outdir: "built", logLevel: "warning" };
const define = {
  "process.env.NODE_ENV": '"production"', __VUE_OPTIONS_API__: "false", __VUE_PROD_DEVTOOLS__: "false",
  __VUE_PROD_HYDRATION_MISMATCH_DETAILS__: "false",
};
await build({ ...common, define, entryPoints: ["react.jsx", "vue.js"] });
await build({ ...common, entryPoints: ["server.jsx"], platform: "node", external: ["react", "react-dom"] });
