//! Sentences of archival prose in seven languages, put together from parts.

use crate::rng::Rng;

/// Words and sentences of one language.
///
/// In the patterns `{o}` stands for a thing, `{b}` for a body, `{p}` for a person, `{t}` for a place, `{y}` for a
/// year, `{n}` for a number, `{r}` for a reference.
pub(crate) struct Language {
    /// Culture code, as the i18n tables have it.
    pub(crate) code: &'static str,
    titles: &'static [&'static str],
    sentences: &'static [&'static str],
    things: &'static [&'static str],
    bodies: &'static [&'static str],
    places: &'static [&'static str],
    given: &'static [&'static str],
    family: &'static [&'static str],
}

impl Language {
    /// A title, mostly of its own.
    pub(crate) fn title(&self, rng: &mut Rng) -> String {
        let mut text = String::with_capacity(80);
        self.expand(rng.pick(self.titles), rng, &mut text);
        text
    }

    /// Some sentences; with `long`, paragraphs.
    pub(crate) fn prose(&self, rng: &mut Rng, long: bool) -> String {
        let mut text = String::with_capacity(1024);
        let paragraphs = if long { 1 + rng.below(4) } else { 1 };
        for paragraph in 0..paragraphs {
            if paragraph > 0 {
                text.push_str(rng.pick(&["\n\n", "\r\n\r\n", "\n"]));
            }
            for sentence in 0..1 + rng.below(if long { 6 } else { 3 }) {
                if sentence > 0 && self.code != "zh" {
                    text.push(' ');
                }
                self.expand(rng.pick(self.sentences), rng, &mut text);
            }
        }
        text
    }

    pub(crate) fn person(&self, rng: &mut Rng) -> String {
        let mut text = String::new();
        self.expand("{p}", rng, &mut text);
        text
    }

    pub(crate) fn body(&self, rng: &mut Rng) -> String {
        let mut text = String::new();
        self.expand("{b}", rng, &mut text);
        text
    }

    pub(crate) fn place(&self, rng: &mut Rng) -> &'static str {
        rng.pick(self.places)
    }

    fn expand(&self, pattern: &str, rng: &mut Rng, out: &mut String) {
        use std::fmt::Write;
        let mut rest = pattern;
        while let Some(at) = rest.find('{') {
            out.push_str(&rest[..at]);
            match rest.as_bytes()[at + 1] {
                b'o' => out.push_str(rng.pick(self.things)),
                b'b' => out.push_str(rng.pick(self.bodies)),
                b't' => out.push_str(rng.pick(self.places)),
                b'p' => {
                    let gap = if self.code == "zh" { "" } else { " " };
                    let (first, second) = if self.code == "zh" { (self.family, self.given) } else { (self.given, self.family) };
                    out.push_str(rng.pick(first));
                    out.push_str(gap);
                    if gap == " " && rng.chance(40) {
                        out.push(char::from(b'A' + rng.below(26) as u8));
                        out.push_str(". ");
                    }
                    out.push_str(rng.pick(second));
                }
                // Writing to a String cannot fail.
                b'y' => write!(out, "{}", rng.between(1652, 2024)).unwrap_or_default(),
                b'n' => write!(out, "{}", rng.between(2, 4000)).unwrap_or_default(),
                _ => {
                    let letter = char::from(b'A' + rng.below(26) as u8);
                    write!(out, "{letter}{}/{}/{:04x}", rng.below(90), rng.below(900), rng.below(65536)).unwrap_or_default();
                }
            }
            rest = &rest[at + 3..];
        }
        out.push_str(rest);
    }
}

/// All languages; the first is the application's own.
pub(crate) static LANGUAGES: [Language; 7] = [
    Language {
        code: "en",
        titles: &[
            "{b}: {o}, {y}",
            "Papers of {p}",
            "{o} concerning {t}",
            "Letter from {p} to {b}",
            "{p} family, {o} ({r})",
            "\"{o}\" of {b}",
            "{t}: {o} and {o}, {y}–{y}",
            "{p}'s {o}",
            "{o}; {o}",
            "{b} v. {p}",
            "Photograph no. {n}: {p} at {t}",
        ],
        sentences: &[
            "Contains {o} and {o} created by {b} in {t} between {y} and {y}.",
            "The {o} were kept by {p}, who served {b} until {y}.",
            "{p} donated {n} items to {b} in {y}; the deed of gift is {r}.",
            "Includes {o} relating to {t}, with marginal notes in {p}'s hand.",
            "Correspondents include {p}, {p} and {p} (see {r}).",
            "Water damage was noted in {y}: folios {n} to {n} are illegible.",
            "Described by {p} as \"the {o} of {b}\", although no {o} survive.",
            "Digitised in {y} from the original {o}; {n} frames, master files in {r}.",
            "See also {r}, which {b} transferred from {t} in {y}.",
            "Closed until {y} at the request of {p}, {t}.",
            "Arrangement follows {b}'s own filing system, begun at {t} in {y}.",
            "Some {o} are missing – cf. \\\\archive\\{t}\\{n} and C:\\scans\\{y}.",
        ],
        things: &[
            "minute books",
            "letters",
            "account ledgers",
            "glass negatives",
            "deeds",
            "survey maps",
            "diaries",
            "oral history recordings",
            "passenger lists",
            "school registers",
            "architectural drawings",
            "press cuttings",
            "baptismal registers",
            "field notebooks",
            "petitions",
            "land grants",
            "hospital admission books",
            "posters",
            "trade union pamphlets",
            "patent files",
        ],
        bodies: &[
            "the Parish Council",
            "the Harbour Board",
            "Messrs. Naidoo & Sons",
            "the Municipal Library",
            "the Geological Survey",
            "the Women's Guild",
            "St. Mary's School",
            "the Railway Department",
            "the Natural History Society",
            "the Magistrate's Court",
            "the Botanical Garden",
            "O'Neill Brothers",
            "the Office of the Surveyor-General",
            "the Co-operative Dairy",
        ],
        places: &[
            "Durban",
            "Port Elizabeth",
            "Kimberley",
            "Grahamstown",
            "London",
            "Pietermaritzburg",
            "Halifax",
            "Nairobi",
            "Cork",
            "Wellington",
            "Robben Island",
            "Ladysmith",
            "Accra",
            "Simon's Town",
        ],
        given: &["Margaret", "John", "Thandiwe", "William", "Ann", "Patrick", "Indira", "Samuel", "Dorothy", "Kwame", "Eleanor", "Sipho"],
        family: &[
            "Naidoo",
            "O'Brien",
            "Mackenzie",
            "Mbeki",
            "Smith",
            "Van Wyk",
            "Chetty",
            "Fitzgerald",
            "Harris-Jones",
            "Dlamini",
            "Baxter",
            "Wright",
            "Pillay",
            "Khumalo",
            "St. John",
            "Goldberg",
            "Campbell",
            "Mahlangu",
            "Turner",
            "Abrahams",
        ],
    },
    Language {
        code: "af",
        titles: &[
            "{b}: {o}, {y}",
            "Versameling {p}",
            "{o} rakende {t}",
            "Brief van {p} aan {b}",
            "’n Lys van {o} ({r})",
            "{t} – {o} en {o}",
            "Foto nr. {n}: {p} te {t}",
        ],
        sentences: &[
            "Bevat {o} en {o} wat tussen {y} en {y} deur {b} te {t} geskep is.",
            "Die {o} is deur {p} bewaar, wat tot {y} by {b} gewerk het.",
            "{p} het in {y} {n} stukke aan {b} geskenk; die skenkingsakte is {r}.",
            "Sluit ook {o} oor {t} in, met ’n voorwoord deur {p}.",
            "Waterskade is in {y} opgemerk: bladsye {n} tot {n} is onleesbaar.",
            "Kyk ook na {r}, wat {b} in {y} van {t} ontvang het.",
            "Geslote tot {y} op versoek van {p}, \"ter wille van die {o}\".",
            "Rangskikking volgens {b} se eie stelsel, begin te {t} in {y}.",
        ],
        things: &[
            "notuleboeke",
            "briewe",
            "grootboeke",
            "glasnegatiewe",
            "transportaktes",
            "kaarte",
            "dagboeke",
            "klankopnames",
            "passasierslyste",
            "skoolregisters",
            "boutekeninge",
            "koerantuitknipsels",
            "doopregisters",
            "veldnotas",
        ],
        bodies: &[
            "die Kerkraad",
            "die Hawebestuur",
            "die Gebroeders Vermeulen",
            "die Stadsbiblioteek",
            "die Geologiese Opname",
            "die Vroue-unie",
            "die Spoorweë",
            "die Landdroshof",
            "die Koöperasie",
            "die Museumtrust",
        ],
        places: &[
            "Stellenbosch",
            "Bloemfontein",
            "Graaff-Reinet",
            "Kaapstad",
            "Windhoek",
            "Oudtshoorn",
            "Pretoria",
            "Vereeniging",
            "Kuruman",
        ],
        given: &["Hendrik", "Anna-Marié", "Jacobus", "Elsabé", "Petrus", "Hester", "Gideon", "Susanna", "André", "René"],
        family: &[
            "Vermeulen",
            "Van der Merwe",
            "Botha",
            "Du Toit",
            "Joubert",
            "Müller",
            "Pretorius",
            "Coetzée",
            "Le Roux",
            "Steyn",
            "De Villiers",
            "Nel",
            "Fouché",
            "Swanepoel",
        ],
    },
    Language {
        code: "fr",
        titles: &[
            "{b} : {o}, {y}",
            "Fonds {p}",
            "{o} relatifs à {t}",
            "Lettre de {p} à {b}",
            "« {o} » de {b}",
            "{t} : {o} et {o}, {y}-{y}",
            "L’affaire {p} ({r})",
        ],
        sentences: &[
            "Contient des {o} et des {o} produits par {b} à {t} entre {y} et {y}.",
            "Les {o} furent conservés par {p}, qui servit {b} jusqu’en {y}.",
            "En {y}, {p} légua {n} pièces à {b} ; l’acte porte la cote {r}.",
            "Parmi les correspondants : {p}, {p} et {p}.",
            "Dégâts des eaux constatés en {y} : les feuillets {n} à {n} sont illisibles.",
            "Numérisé en {y} d’après les {o} d’origine (cote {r}).",
            "Incommunicable jusqu’en {y} à la demande de {p}, « à {t} même ».",
            "Le classement suit l’ordre établi par {b} à {t} dès {y}.",
        ],
        things: &[
            "registres",
            "procès-verbaux",
            "plans",
            "négatifs sur verre",
            "cahiers",
            "livres de comptes",
            "arrêtés",
            "relevés cadastraux",
            "carnets",
            "coupures de presse",
            "actes notariés",
            "enregistrements",
            "rôles d’équipage",
            "croquis",
        ],
        bodies: &[
            "le Conseil général",
            "la Société d’histoire naturelle",
            "l’Évêché",
            "la Chambre de commerce",
            "l’École normale",
            "le Musée océanographique",
            "la Compagnie des Indes",
            "l’Hôtel-Dieu",
            "le Tribunal",
            "la Régie des chemins de fer",
        ],
        places: &["Québec", "Saint-Denis", "Orléans", "Nîmes", "Montréal", "Besançon", "Port-Louis", "Abidjan", "Sète", "Genève"],
        given: &["Hélène", "François", "Zoé", "Étienne", "Geneviève", "René", "Aïcha", "Benoît", "Noëlle", "Jean-Loup"],
        family: &[
            "Lefèvre",
            "Côté",
            "Garçon",
            "D’Amboise",
            "Théry",
            "Béranger",
            "L’Écuyer",
            "Traoré",
            "Gagné",
            "Saint-Exupéry",
            "Nguyên",
            "Müntz",
            "Brûlé",
            "Deschênes",
        ],
    },
    Language {
        code: "zu",
        titles: &["{b}: {o}, {y}", "Amaphepha ka-{p}", "{o} mayelana ne-{t}", "Incwadi evela ku-{p} eya {b}", "Isithombe {n}: {p}, e-{t}"],
        sentences: &[
            "Kuqukethe {o} kanye {o} okwenziwe {b} e-{t} phakathi kuka-{y} no-{y}.",
            "Lawa {o} agcinwe ngu-{p} owayesebenzela {b} kuze kube ngu-{y}.",
            "Ngo-{y} u-{p} wanikela ngezinto ezingu-{n} {b} ({r}).",
            "Bheka futhi {r}, eyavela e-{t} ngo-{y}.",
            "Kuvaliwe kuze kube ngu-{y} ngesicelo sika-{p}.",
        ],
        things: &[
            "izincwadi",
            "amarejista",
            "izithombe",
            "amabalazwe",
            "izingoma eziqoshiwe",
            "amaminithi",
            "izivumelwano",
            "amaphephandaba",
        ],
        bodies: &["umkhandlu", "isikole", "umtapo wolwazi", "inkantolo", "isibhedlela", "ibandla", "umnyango wezindaba"],
        places: &["Thekwini", "Mgungundlovu", "Goli", "Nongoma", "Showe", "Lundi", "Mzimkhulu"],
        given: &["Nomvula", "Themba", "Zanele", "Bhekizizwe", "Lindiwe", "Mandla", "Ntombikayise"],
        family: &["Ngcobo", "Zulu", "Mkhize", "Buthelezi", "Cele", "Mthembu", "Hlongwane", "Gumede", "Xaba", "Nxumalo"],
    },
    Language {
        code: "ru",
        titles: &[
            "{b}: {o}, {y} г.",
            "Личный фонд: {p}",
            "{o} ({t}, {y}–{y})",
            "Письмо от {p} в {b}",
            "«{o}» — {p}",
            "Дело № {n}: {o}",
            "Фотография № {n}. {t}",
        ],
        sentences: &[
            "Содержит {o} и {o}, созданные учреждением «{b}» (г. {t}) в {y}–{y} гг.",
            "Хранитель: {p}; передано в {y} году, опись {r}.",
            "В деле {n} листов; {o} частично утрачены при пожаре {y} года.",
            "Среди корреспондентов — {p}, {p} и {p}.",
            "См. также: {r}, {t}, {y} г.",
            "Доступ закрыт до {y} года по просьбе дарителя ({p}).",
            "Оцифровано в {y} году: {n} кадров, {o}.",
            "Систематизация выполнена по схеме фондообразователя: {b}, {t}.",
        ],
        things: &[
            "протоколы",
            "письма",
            "карты",
            "чертежи",
            "дневники",
            "ведомости",
            "фотографии",
            "газетные вырезки",
            "метрические книги",
            "отчёты",
            "прошения",
            "полевые журналы",
            "афиши",
            "списки",
        ],
        bodies: &[
            "Губернское правление",
            "Городская дума",
            "Географическое общество",
            "Публичная библиотека",
            "Горный департамент",
            "Народное училище",
            "Управление железных дорог",
            "Ботанический сад",
        ],
        places: &["Санкт-Петербург", "Казань", "Томск", "Архангельск", "Астрахань", "Орёл", "Кяхта", "Ялта"],
        given: &["Алёна", "Пётр", "Софья", "Фёдор", "Евдокия", "Игнатий", "Любовь", "Юрий", "Ксения"],
        family: &[
            "Щербаков",
            "Ковалёв",
            "Ильин",
            "Подъячев",
            "Воробьёв",
            "Цветаев",
            "Жуковский",
            "Юсупов",
            "Эйлер",
            "Мещеряков",
            "Гоголь",
            "Хвостов",
        ],
    },
    Language {
        code: "ar",
        titles: &["{b}: {o}، {y}", "أوراق {p}", "{o} من {t}", "رسالة من {p} إلى {b}", "«{o}» ({r})", "صورة رقم {n}: {p} في {t}"],
        sentences: &[
            "تضم {o} و{o} أنشأتها {b} في {t} بين {y} و{y}.",
            "حفظ {p} هذه الأوراق حتى سنة {y}، ورقمها {r}.",
            "أهدى {p} {n} قطعة إلى {b} سنة {y}؛ انظر {r}.",
            "من المراسلين: {p}، و{p}، و{p}.",
            "لحق الضرر بالأوراق من {n} إلى {n} سنة {y}، ومنها {o}.",
            "مغلقة حتى سنة {y} بطلب من {p} («{t}»).",
            "رُقمنت سنة {y} من {o} الأصلية في {t}: {n} لقطة.",
        ],
        things: &["سجلات", "رسائل", "خرائط", "مخطوطات", "دفاتر الحساب", "صور فوتوغرافية", "عقود", "محاضر الجلسات", "يوميات", "صحف قديمة"],
        bodies: &[
            "دار الكتب",
            "الجمعية الجغرافية",
            "مصلحة السكك الحديدية",
            "المجلس البلدي",
            "المحكمة الشرعية",
            "مدرسة المعلمين",
            "غرفة التجارة",
        ],
        places: &["القاهرة", "بيروت", "تونس", "فاس", "دمشق", "الخرطوم", "تلمسان", "زنجبار"],
        given: &["ليلى", "أحمد", "فاطمة", "يوسف", "عائشة", "إبراهيم", "زينب", "خليل"],
        family: &["الخوري", "بن علي", "المصري", "الحدّاد", "التونسي", "عبد الرحمن", "النجّار", "السعيد", "الفاسي", "حمدان"],
    },
    Language {
        code: "zh",
        titles: &["{b}:{o}({y}年)", "{p}檔案", "{t}{o}與{o}", "{p}致{b}函", "「{o}」{r}", "照片第{n}號:{p}攝於{t}"],
        sentences: &[
            "包括{b}於{y}年至{y}年間在{t}形成的{o}和{o}。",
            "{o}由{p}保存至{y}年,編號{r}。",
            "{y}年{p}向{b}捐贈{n}件,見{r}。",
            "往來者有{p}、{p}及{p}等。",
            "{y}年發現水漬:第{n}至{n}頁無法辨認。",
            "應{p}之請,封存至{y}年(「{t}」)。",
            "{y}年據原{o}數位化,共{n}幀。𠮷野家亦藏有{o}。",
        ],
        things: &["會議記錄", "信札", "帳簿", "玻璃底片", "地契", "地圖", "日記", "錄音", "剪報", "戶籍冊", "圖紙", "奏摺"],
        bodies: &["市政廳", "商會", "地質調查所", "圖書館", "師範學校", "鐵路局", "博物院", "會館"],
        places: &["上海", "廣州", "香港", "臺北", "天津", "檳城", "泉州", "橫濱"],
        given: &["淑芬", "志明", "文昌", "玉蘭", "德馨", "雪梅", "國棟", "曉𣿱", "雅婷"],
        family: &["王", "陳", "歐陽", "林", "黃", "司馬", "張", "鄭", "蕭", "龔"],
    },
];

/// Notes that break careless tools: SQL in text, comments, quotes, escapes, control and four-byte characters.
pub(crate) const TRICKY: [&str; 14] = [
    "INSERT INTO `slug` VALUES (1,'x',2,0);\nDROP TABLE `slug`;",
    "-- not a comment\n# nor this\n/*!40101 SET NAMES latin1 */;",
    "-- Table structure for table `object`\n--\n\nDROP TABLE IF EXISTS `object`;",
    "-- Dump completed on 1999-12-31 23:59:59",
    "DELIMITER ;;\nEND;;\nDELIMITER ;",
    "It''s \"quoted\" with 'all' `kinds` of \\'quotes\\' and a trailing backslash \\",
    "C:\\new\\table\\0\\Z\\%\\_ 100% \\\\server\\share",
    "a NUL here:\0, ^Z here:\x1a, a bell:\x07, a tab:\t, CR LF:\r\n, DEL:\x7f",
    "👩🏽‍🚀 family 👨‍👩‍👧‍👦, flags 🇿🇦🇫🇷, keycap 7️⃣, 𝔉𝔯𝔞𝔨𝔱𝔲𝔯, 𠜎𠜱",
    "e\u{301} is not é; \u{feff}a BOM; a\u{200d}joiner; \u{202e}right to left\u{202c}; ﷽",
    "\\N",
    "NULL",
    "  leading and trailing blanks  ",
    "O'Reilly; SELECT 1; -- ; ' OR '1'='1",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_expands() {
        for language in &LANGUAGES {
            let mut rng = Rng::new(1, "text", 0);
            for pattern in language.titles.iter().chain(language.sentences) {
                let mut text = String::new();
                language.expand(pattern, &mut rng, &mut text);
                assert!(!text.contains(['{', '}']), "{pattern}: {text}");
            }
        }
    }
}
