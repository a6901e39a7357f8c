import { renderToString } from "react-dom/server";
import { PictureSearch } from "./PictureSearch.jsx";

console.log(renderToString(<PictureSearch searchKey="a key" />));
