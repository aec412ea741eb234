"""Codes of languages as `language.keep` has them: ISO 639-1 where there is one, else ISO 639-3, as lid.176's labels.

Identifiers tell languages that ISO 639-3 tells, where other lists have the family under one code: Mandarin (cmn) is
zh, Standard Arabic (arb) ar, Iranian Persian (pes) fa. Of each family the standard language alone takes its code, since
its dialects have labels of their own in most lists, lid.176's among them (arz, yue, wuu).
Source: ISO 639-3 code tables of SIL, part 1 and macrolanguage mappings.
"""

from __future__ import annotations

_PART_1 = """
aar=aa abk=ab afr=af aka=ak amh=am ara=ar arg=an asm=as ava=av ave=ae aym=ay aze=az bak=ba bam=bm bel=be ben=bn bih=bh
bis=bi bod=bo bos=bs bre=br bul=bg cat=ca ces=cs cha=ch che=ce chu=cu chv=cv cor=kw cos=co cre=cr cym=cy dan=da deu=de
div=dv dzo=dz ell=el eng=en epo=eo est=et eus=eu ewe=ee fao=fo fas=fa fij=fj fin=fi fra=fr fry=fy ful=ff gla=gd gle=ga
glg=gl glv=gv grn=gn guj=gu hat=ht hau=ha hbs=sh heb=he her=hz hin=hi hmo=ho hrv=hr hun=hu hye=hy ibo=ig ido=io iii=ii
iku=iu ile=ie ina=ia ind=id ipk=ik isl=is ita=it jav=jv jpn=ja kal=kl kan=kn kas=ks kat=ka kau=kr kaz=kk khm=km kik=ki
kin=rw kir=ky kom=kv kon=kg kor=ko kua=kj kur=ku lao=lo lat=la lav=lv lim=li lin=ln lit=lt ltz=lb lub=lu lug=lg mah=mh
mal=ml mar=mr mkd=mk mlg=mg mlt=mt mon=mn mri=mi msa=ms mya=my nau=na nav=nv nbl=nr nde=nd ndo=ng nep=ne nld=nl nno=nn
nob=nb nor=no nya=ny oci=oc oji=oj ori=or orm=om oss=os pan=pa pli=pi pol=pl por=pt pus=ps que=qu roh=rm ron=ro run=rn
rus=ru sag=sg san=sa sin=si slk=sk slv=sl sme=se smo=sm sna=sn snd=sd som=so sot=st spa=es sqi=sq srd=sc srp=sr ssw=ss
sun=su swa=sw swe=sv tah=ty tam=ta tat=tt tel=te tgk=tg tgl=tl tha=th tir=ti ton=to tsn=tn tso=ts tuk=tk tur=tr twi=tw
uig=ug ukr=uk urd=ur uzb=uz ven=ve vie=vi vol=vo wln=wa wol=wo xho=xh yid=yi yor=yo zha=za zho=zh zul=zu
"""
_STANDARDS = """
als=sq arb=ar ayr=ay azj=az bos=bs cmn=zh ekk=et fil=tl fuv=ff gaz=om gug=gn kmr=ku khk=mn lvs=lv nob=no npi=ne ory=or
pbt=ps pes=fa plt=mg quy=qu swh=sw uzn=uz ydd=yi zsm=ms knc=kr
"""
"""lid.176 has no label of Bokmål but Norwegian's; Filipino is Tagalog there."""
_TWO_LETTERS = {"in": "id", "iw": "he", "ji": "yi", "jw": "jv", "mo": "ro", "nb": "no", "fil": "tl"}
"""Codes that were withdrawn, and those above."""


def _table(text: str) -> dict[str, str]:
    return dict(pair.split("=") for pair in text.split())


_CODES = _table(_PART_1) | _table(_STANDARDS) | _TWO_LETTERS


def short_code(label: str) -> str:
    """The code of a label such as `eng_Latn`, `eng`, `zh-Hant` or `iw`, without its script: en, en, zh, he."""
    language = label.replace("-", "_").partition("_")[0]
    return _CODES.get(language, language)
