// The types of the API, from its description: node generate.mjs http://127.0.0.1:8000/schema/openapi.json

import { writeFileSync } from "node:fs";
import openapiTS, { astToString } from "openapi-typescript";
import ts from "typescript";

const BLOB = ts.factory.createTypeReferenceNode("Blob"); // what a picture is in a browser and in Node
const types = await openapiTS(new URL(process.argv[2]), {
  transform: (schema) => (schema.format === "binary" ? BLOB : undefined),
});
writeFileSync("api.ts", astToString(types));
