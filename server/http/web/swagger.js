// The page that shows the API's description and lets its reader try each call.

const answer = await fetch("openapi.json");
const description = await answer.json();

// The calls go where this page came from, also below a prefix that no proxy has named.
const root = new URL("..", location.href).pathname;
description.servers = [{ url: root === "/" ? root : root.replace(/\/$/, "") }];

SwaggerUIBundle({
  spec: description,
  dom_id: "#api",
  deepLinking: true,
  validatorUrl: null, // else it has a server elsewhere validate the description
});
