//! What every generated registry is made of.

/// Code, name, offset, designation.
pub const REGIONS: &[(&str, &str, &str, &str)] = &[
    ("14", "Республика Саха (Якутия)", "+09:00", "SAKHA"),
    ("45", "Курганская область", "+05:00", "KURG"),
    ("66", "Свердловская область", "+05:00", "SVERD"),
    ("08", "Республика Калмыкия", "+03:00", "KALM"),
];
/// All in region 14 but the last three, which are in the other regions.
pub const AREAS: &[&str] = &[
    "Якутск",
    "Абыйский район",
    "Алданский район",
    "Амгинский район",
    "Верхневилюйский район",
    "Верхоянский район",
    "Вилюйский район",
    "Горный район",
    "Кобяйский район",
    "Ленский район",
    "Мегино-Кангаласский район",
    "Мирнинский район",
    "Намский район",
    "Нерюнгринский район",
    "Нюрбинский район",
    "Оймяконский район",
    "Олёкминский район",
    "Сунтарский район",
    "Хангаласский район",
    "Курган",
    "Екатеринбург",
    "Элиста",
];
/// Name and whether a companion goes along. Ids and priorities are 10, 20, 30 and so on.
pub const CATEGORIES: &[(&str, bool)] = &[
    ("Инвалид I группы", true),
    ("Ветеран труда", false),
    ("Многодетная семья", false),
    ("Ребёнок-инвалид", true),
    ("Участник Великой Отечественной войны", true),
    ("Инвалид II группы", false),
    ("Инвалид III группы", false),
    ("Труженик тыла", false),
    ("Реабилитированное лицо", false),
    ("Пенсионер", false),
    ("Студент очной формы обучения", false),
    ("Почётный донор России", false),
];
/// Name, kind, percent of the benefit, and limit where there is one.
pub const SERVICES: &[(&str, &str, u8, &str)] = &[
    ("Посещение бассейна", "visit", 100, ""),
    ("Посещение музея", "visit", 100, r#"{"count":4,"period":"month"}"#),
    ("Проезд в городском автобусе", "transport", 100, ""),
    ("Скидка на товары первой необходимости", "discount", 10, ""),
    ("Горячее питание школьника", "meal", 100, r#"{"count":2,"period":"day"}"#),
    ("Проход в учебное заведение", "pass", 100, ""),
    ("Учёт посещения кружка", "attendance", 100, ""),
    ("Адресная социальная выплата", "payment", 100, r#"{"count":1,"period":"month"}"#),
    ("Технические средства реабилитации", "goods", 100, r#"{"count":1,"period":"year"}"#),
    ("Каток", "visit", 50, ""),
    ("Посещение театра", "visit", 50, r#"{"count":2,"period":"month"}"#),
    ("Проезд в пригородном автобусе", "transport", 50, ""),
    ("Перелёт по субсидированному тарифу", "transport", 50, r#"{"count":4,"period":"year"}"#),
    ("Скидка в аптеке", "discount", 5, ""),
    ("Скидка на услуги связи", "discount", 15, ""),
    ("Обед для пенсионера", "meal", 70, r#"{"count":5,"period":"week"}"#),
    ("Проход в поликлинику", "pass", 100, ""),
    ("Посещение зоопарка", "visit", 100, ""),
    ("Посещение спортивного зала", "visit", 30, r#"{"count":3,"period":"week"}"#),
    ("Паромная переправа", "transport", 100, ""),
    ("Скидка в парикмахерской", "discount", 20, ""),
    ("Детское питание", "goods", 100, r#"{"count":1,"period":"month"}"#),
    ("Посещение библиотечных курсов", "attendance", 100, ""),
    ("Возмещение оплаты топлива", "payment", 50, r#"{"count":1,"period":"year"}"#),
    ("Проезд в такси для инвалидов", "transport", 80, r#"{"count":8,"period":"month"}"#),
];
pub const ORGANIZATION_KINDS: &[&str] =
    &["Бассейн", "Музей", "Автопарк", "Магазин", "Школа", "Театр", "Аптека", "Стадион"];
pub const ORGANIZATION_NAMES: &[&str] =
    &["Алмаз", "Лена", "Полюс", "Сардаана", "Туймаада", "Чолбон", "Эллэй", "Кэскил", "Дьулуур"];
/// Organization 1 has connection type 1, organization 2 type 2, organization 3 type 3.
pub const CONNECTIONS: &[&str] =
    &["T2V2", "T2V1", "T3", "T2V2", "AIRLINE", "T2V2", "T1V1", "T2V1", "T3", "T1V2"];
/// States of the last organizations; all others are active.
pub const LAST_STATES: &[&str] =
    &["submitted", "testing", "change_pending", "suspending", "excluded"];
