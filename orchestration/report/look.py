"""How a page looks: its style sheet and the few lines of script behind its switch of colours.

Light and dark follow the system, and the switch overrules it for one visit: where the page cannot store anything, as
a file from a mail, nothing breaks. Colours are those of Okabe and Ito (2008), which the colour-blind tell apart, a
lighter step of them on dark ground; text has a contrast of 4.5 to 1 at least. On paper it is light, and all unfolded.
"""

from __future__ import annotations

_LIGHT = """--paper:#ffffff;--card:#f5f6f8;--ink:#1b1f24;--dim:#59636e;--rule:#d5dae0;--accent:#0063a8;
--kept:#0072b2;--dropped:#d55e00;--quarantined:#8a5f9e;--other:#009e73;--pale:#9db6c9;--warn:#7a4b00;--warnbg:#fff3da"""
_DARK = """--paper:#14171b;--card:#1d2126;--ink:#e8ebee;--dim:#a3adb8;--rule:#343b43;--accent:#79bdf2;
--kept:#56b4e9;--dropped:#f0894a;--quarantined:#cc9ae0;--other:#2fc9a0;--pale:#486377;--warn:#ffd58a;--warnbg:#3a2d12"""

STYLE = (
    f"""
:root{{color-scheme:light;{_LIGHT}}}
@media screen and (prefers-color-scheme:dark){{:root:not([data-theme=light]){{color-scheme:dark;{_DARK}}}}}
@media screen{{:root[data-theme=dark]{{color-scheme:dark;{_DARK}}}}}
"""
    + """
*{box-sizing:border-box}
html{font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;-webkit-text-size-adjust:100%}
body{margin:0;background:var(--paper);color:var(--ink);overflow-wrap:anywhere}
header,main,footer{max-width:1180px;margin:0 auto;padding:0 24px}
header{padding-top:28px}
h1{font-size:1.9rem;line-height:1.2;margin:0 0 4px}
h2{font-size:1.45rem;line-height:1.25;margin:0 0 2px}
h3{font-size:1.08rem;margin:28px 0 6px}
h4{font-size:.95rem;margin:18px 0 4px}
p{margin:6px 0;max-width:75ch}
a{color:var(--accent)}
a:focus-visible,button:focus-visible,summary:focus-visible,.scroll:focus-visible{outline:3px solid var(--accent);
outline-offset:2px}
.skip{position:absolute;left:-999px}.skip:focus{left:12px;top:8px;background:var(--paper);padding:4px 8px}
.dim,.note,figcaption,caption{color:var(--dim)}
.note{font-size:.92rem}
code,pre,.code{font-family:ui-monospace,"SF Mono",Menlo,Consolas,"DejaVu Sans Mono",monospace;font-size:.86em}
pre{white-space:pre-wrap;margin:6px 0;line-height:1.45}
button{font:inherit;font-size:.88rem;color:inherit;background:var(--card);border:1px solid var(--rule);
border-radius:8px;padding:6px 12px;cursor:pointer;min-height:36px;white-space:nowrap;flex:none}
.top{display:flex;gap:12px;align-items:flex-start;justify-content:space-between}
.top>div{min-width:0}
nav ul{display:flex;flex-wrap:wrap;gap:4px 16px;list-style:none;padding:0;margin:10px 0 0;font-size:.92rem}
article{border-top:3px solid var(--rule);margin-top:36px;padding-top:20px}
.lead{font-size:1.06rem}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:16px 0}
.tiles>div{background:var(--card);border-radius:12px;padding:12px 14px}
.tiles dt{font-size:.84rem;color:var(--dim)}
.tiles dd{margin:0}.tiles b{display:block;font-size:1.5rem;line-height:1.25;font-variant-numeric:tabular-nums}
.tiles span{font-size:.84rem;line-height:1.3;display:block}
.facts{display:grid;gap:2px 20px;margin:8px 0}
.facts>div{display:grid;grid-template-columns:minmax(90px,150px) 1fr;gap:12px}
.facts dt{color:var(--dim)}.facts dd{margin:0;min-width:0}
.scroll{overflow-x:auto;margin:8px 0}
table.narrow{max-width:680px}
td.empty{border-bottom:1px solid var(--rule)}
.examples{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,480px),1fr));gap:0 28px}
.example .facts{font-size:.88rem;gap:0}.example .facts>div{grid-template-columns:minmax(70px,110px) 1fr}

table{border-collapse:collapse;width:100%;font-size:.92rem}
caption{text-align:left;font-size:.86rem;padding-bottom:4px}
th,td{text-align:left;vertical-align:top;padding:4px 10px 4px 0;border-bottom:1px solid var(--rule);min-width:3.2em}
tbody th{font-weight:500;min-width:8em}
thead th{font-size:.84rem;color:var(--dim);font-weight:500;vertical-align:bottom;overflow-wrap:normal}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.drawn{width:32%;min-width:110px}
.bar{display:block;width:100%;margin-top:4px;overflow:visible}
.charts{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,340px),1fr));gap:16px;margin:10px 0}
.media{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,250px),1fr));gap:16px;margin:10px 0}
figure{margin:0;background:var(--card);border-radius:12px;padding:12px;min-width:0}
figcaption{font-size:.88rem;line-height:1.4;margin-top:4px}
.chart{display:block;width:100%;height:auto;max-width:560px;margin:0 auto}
.chart text{font-size:10.5px;fill:var(--dim);font-variant-numeric:tabular-nums}
.chart text.name{font-size:11px}
.grid{stroke:var(--rule);stroke-width:.7}.rail{stroke:var(--rule);stroke-width:2}
.mark{stroke:var(--dim);stroke-dasharray:3 3}
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}
.whisker{stroke-width:2}
.kept{fill:var(--kept)}.dropped{fill:var(--dropped)}.quarantined{fill:var(--quarantined)}
.other{fill:var(--other)}.pale{fill:var(--pale)}
.line.kept,.whisker.kept{fill:none;stroke:var(--kept)}.line.dropped,.whisker.dropped{fill:none;stroke:var(--dropped)}
.line.other{fill:none;stroke:var(--other);stroke-dasharray:6 3}
.line.pale{fill:none;stroke:var(--pale);stroke-width:.9}
.key{display:flex;flex-wrap:wrap;gap:4px 18px;list-style:none;padding:0;margin:6px 0;font-size:.88rem}
.key svg{width:14px;height:14px;vertical-align:-2px;margin-right:6px}
.example{border-left:4px solid var(--rule);padding:2px 0 2px 12px;margin:12px 0;min-width:0}
.example.kept{border-color:var(--kept)}.example.dropped{border-color:var(--dropped)}
.example.quarantined{border-color:var(--quarantined)}
.example h4{margin:0}
.learned{color:inherit;background:color-mix(in srgb,var(--other) 22%,transparent)}
img{max-width:100%;height:auto;display:block;border-radius:6px}
img.small{width:100%;max-width:224px;image-rendering:pixelated}
img.wide{width:100%;height:150px;image-rendering:pixelated}
audio{width:100%;margin-top:6px;height:40px}
.caution{background:var(--warnbg);color:var(--warn);border-radius:8px;padding:8px 12px}
.good{color:var(--kept);font-weight:600}.bad{color:var(--dropped);font-weight:600}
details{margin:8px 0}summary{cursor:pointer;padding:4px 0}
.tree,.tree ul{list-style:none;padding-left:16px;border-left:1px solid var(--rule);margin:2px 0;font-size:.92rem}
.tree>li,.tree ul>li{padding:1px 0}
footer{color:var(--dim);font-size:.88rem;margin-top:48px;padding-bottom:40px}
@media (max-width:560px){header,main,footer{padding-left:14px;padding-right:14px}h1{font-size:1.5rem}
h2{font-size:1.25rem}
thead{position:absolute;left:-9999px}table,caption,tbody,tr,tbody th,td{display:block}
tr{display:flex;flex-wrap:wrap;gap:0 14px;border-bottom:1px solid var(--rule);padding:5px 0}
th,td{border:0;padding:0;min-width:0}tbody th{flex:0 0 100%}td.empty{display:none}
td{flex:0 1 auto;text-align:left}td[data-label]::before{content:attr(data-label) " ";color:var(--dim);font-size:.84rem}
td.drawn{flex:0 0 100%;width:auto}td.drawn::before{display:none}
.facts>div,.example .facts>div{grid-template-columns:92px 1fr;gap:8px}.tiles{grid-template-columns:repeat(2,1fr)}
.tiles b{font-size:1.25rem}}
@media print{html{font-size:11px}button,nav,audio,.skip{display:none}header,main,footer{max-width:none;padding:0}
.scroll{overflow:visible}figure,tr,.example,.tiles>div{break-inside:avoid}h2,h3,h4{break-after:avoid}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
)

SCRIPT = """
(function(){
var root=document.documentElement,button=document.getElementById("theme");
function dark(){var t=root.dataset.theme;return t?t==="dark":matchMedia("(prefers-color-scheme:dark)").matches}
function label(){button.textContent=dark()?"Light colours":"Dark colours"}
try{var kept=localStorage.getItem("theme");if(kept==="dark"||kept==="light")root.dataset.theme=kept}catch(e){}
button.hidden=false;label();
button.addEventListener("click",function(){
root.dataset.theme=dark()?"light":"dark";label();
try{localStorage.setItem("theme",root.dataset.theme)}catch(e){}});
matchMedia("(prefers-color-scheme:dark)").addEventListener("change",label);
var folded=[];
addEventListener("beforeprint",function(){document.querySelectorAll("details:not([open])").forEach(function(d){
folded.push(d);d.open=true})});
addEventListener("afterprint",function(){folded.forEach(function(d){d.open=false});folded=[]});
})();
"""
