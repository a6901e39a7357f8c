import { createRoot } from "react-dom/client";
import { PictureSearch } from "./PictureSearch.jsx";

const { searchKey } = document.body.dataset;
const chosen = (product) => { document.title = product; };
createRoot(document.querySelector("main")).render(<PictureSearch searchKey={searchKey} onChosen={chosen} />);
