import { createApp } from "vue";
import PictureSearch from "./PictureSearch.vue";

const { searchKey } = document.body.dataset;
const chosen = (product) => { document.title = product; };
createApp(PictureSearch, { searchKey, onChosen: chosen }).mount("main");
