//! The page in a browser: the player, its keys, what it says to whom, and what it does with hostile words.

use labctl::graph::html;

use super::browser::{Browser, NEEDS};
use super::harness::until;
use super::{crowd, labs, tea};

crate::tests![NEEDS;
    every_lab_opens_without_a_complaint,
    next_and_previous_move_the_packet_to_the_device_that_the_step_names,
    each_step_of_each_packet_is_marked_and_told,
    slider_keys_and_list_lead_to_a_step,
    play_goes_on_by_itself_until_it_is_paused,
    a_packet_in_another_one_and_a_dropped_one_look_different,
    flows_and_packets_can_be_chosen,
    packets_that_went_the_way_of_another_come_when_they_are_asked_for,
    steps_are_folded_but_for_the_packet_that_is_shown,
    a_comment_that_means_harm_does_none,
    it_works_on_a_phone,
    everything_has_a_role_and_a_name,
    who_wants_no_motion_gets_none,
    it_is_dark_where_that_is_preferred,
    a_pod_among_many_is_found_in_the_box_of_all,
];

/// A browser with the trace's page.
fn opened(width: u32, height: u32) -> Browser {
    let browser = Browser::new(width, height);
    let (lab, trace) = tea();
    browser.open(&html(&lab.lab, &lab.plan, Some(&trace)));
    assert_eq!(browser.complaints(), Vec::<String>::new());
    browser
}

/// Where the marker stands once it is there.
#[track_caller]
fn stands_at(browser: &Browser, place: &str) {
    let at = || browser.text("document.getElementById('marker').dataset.at");
    until(&format!("the packet is at {place}, not {}", at()), || at() == place);
    // What it says of itself is also where it is drawn.
    let near = "const m = document.querySelector('#marker circle').getBoundingClientRect();
        const b = document.querySelector(`[data-id='${document.getElementById('marker').dataset.at}'] rect:last-of-type`).getBoundingClientRect();
        const [x, y] = [m.x + m.width / 2, m.y + m.height / 2];
        return x > b.x && x < b.right + 12 && y > b.y && y < b.bottom";
    assert_eq!(browser.run(near), true, "the marker is elsewhere than at {place}");
}

fn step(browser: &Browser) -> String {
    browser.text("document.getElementById('step').textContent")
}

fn count(browser: &Browser) -> String {
    browser.text("document.getElementById('count').textContent")
}

fn every_lab_opens_without_a_complaint() {
    let browser = Browser::new(1400, 1000);
    for lab in labs() {
        browser.open(&html(&lab.lab, &lab.plan, None));
        assert_eq!(browser.complaints(), Vec::<String>::new(), "{}", lab.name);
        let drawn = browser.run("return document.querySelectorAll('.device').length");
        assert_eq!(drawn, lab.graph(false).devices().count(), "{}", lab.name);
        assert_eq!(browser.run("return document.querySelector('.player')"), serde_json::Value::Null);
    }
}

fn next_and_previous_move_the_packet_to_the_device_that_the_step_names() {
    let browser = opened(1400, 1000);
    stands_at(&browser, "client/laptop");
    assert!(step(&browser).contains("a program sends SYN to 192.168.1.11:30080"), "{}", step(&browser));
    browser.click("#next");
    browser.click("#next");
    stands_at(&browser, "client/laptop#eth0");
    assert!(step(&browser).contains("it leaves by eth0"), "{}", step(&browser));
    browser.click("#next");
    let (lab, _) = tea();
    let port = lab.graph(false).links.iter().find(|l| l.to == "client/laptop#eth0").expect("a cable").from.clone();
    stands_at(&browser, &port);
    assert_eq!(count(&browser), "4 of 55");
    browser.click("#previous");
    stands_at(&browser, "client/laptop#eth0");
    browser.click("#first");
    stands_at(&browser, "client/laptop");
    browser.click("#previous");
    assert_eq!(count(&browser), "1 of 55");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

fn each_step_of_each_packet_is_marked_and_told() {
    let browser = opened(1400, 1000);
    browser.prefer("prefers-reduced-motion", "reduce");
    let (_, trace) = tea();
    for packet in trace.flows.iter().flat_map(|f| &f.packets) {
        for one in &packet.steps {
            let dev = one.dev.as_ref().map(|dev| format!("#{}", dev.as_str())).unwrap_or_default();
            stands_at(&browser, &format!("{}{dev}", one.place.path()));
            let told = step(&browser);
            assert!(told.contains(&one.says), "{told} should say {}", one.says);
            assert!(told.contains(&format!("Packet {}", packet.number)) && told.contains("known by"), "{told}");
            assert_eq!(told.contains("(inferred)"), one.is_inferred(), "{told}");
            if let Some(header) = &one.header {
                assert!(told.contains(&header.to_string()), "{told} should have {header}");
            }
            let current = browser.text("document.querySelector('#steps [aria-current]').textContent");
            assert!(current.ends_with(&one.says), "{current}");
            browser.click("#next");
        }
    }
    assert_eq!(count(&browser), "55 of 55");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

fn slider_keys_and_list_lead_to_a_step() {
    const RIGHT: &str = "\u{e014}";
    const LEFT: &str = "\u{e012}";
    let browser = opened(1400, 1000);
    browser.keys("body", RIGHT);
    browser.keys("body", RIGHT);
    assert_eq!(count(&browser), "3 of 55");
    browser.keys("body", LEFT);
    assert_eq!(count(&browser), "2 of 55");
    browser.keys("body", "\u{e010}");
    assert_eq!(count(&browser), "55 of 55");
    browser.keys("body", "\u{e011}");
    assert_eq!(count(&browser), "1 of 55");
    // The slider takes the keys itself, once each.
    browser.keys("#slider", RIGHT);
    assert_eq!(count(&browser), "2 of 55");
    browser.keys("#slider", &RIGHT.repeat(5));
    assert_eq!(count(&browser), "7 of 55");
    stands_at(&browser, "host/node1#eth0");
    browser.click("#steps li:nth-child(5) button");
    assert_eq!(
        (count(&browser), browser.text("document.getElementById('slider').value")),
        ("4 of 55".to_owned(), "3".to_owned())
    );
}

fn play_goes_on_by_itself_until_it_is_paused() {
    let browser = opened(1400, 1000);
    browser.click("#play");
    assert!(browser.announced("#play").1.contains("Pause"));
    until("two steps are played", || count(&browser) == "3 of 55");
    browser.keys("body", " ");
    assert!(browser.announced("#play").1.contains("Play"));
    // At the end it stops by itself, and begins again where it is asked to.
    browser.run("const s = document.getElementById('slider'); s.value = 53; s.dispatchEvent(new Event('input'))");
    browser.keys("body", " ");
    until("it comes to the end and stops", || {
        count(&browser) == "55 of 55" && browser.announced("#play").1.contains("Play")
    });
    browser.click("#play");
    assert_eq!(count(&browser), "1 of 55");
}

/// Whether a part of the marker is drawn.
fn is_drawn(browser: &Browser, part: &str) -> bool {
    browser.run(&format!("return getComputedStyle(document.querySelector('#marker {part}')).display !== 'none'"))
        == true
}

fn a_packet_in_another_one_and_a_dropped_one_look_different() {
    let browser = opened(1400, 1000);
    let show = |number: usize| {
        browser.run(&format!("[...document.querySelectorAll('#steps li:not(.head) button')][{number}].click()"));
        (is_drawn(&browser, ".outer"), is_drawn(&browser, ".cross"))
    };
    assert_eq!(show(0), (false, false));
    assert_eq!(show(20), (true, false));
    assert!(
        step(&browser).contains("in an outer packet") && step(&browser).contains("outer header"),
        "{}",
        step(&browser)
    );
    assert_eq!(show(54), (false, true));
    assert!(step(&browser).contains("rule-drop") && step(&browser).contains("NETFILTER_DROP"), "{}", step(&browser));
    stands_at(&browser, "host/node1#eth0");
    let come_along = browser.run("return [...document.querySelectorAll('.way.seen')].map((way) => way.dataset.to)");
    assert_eq!(come_along.as_array().map(Vec::len), Some(4), "two cables and the switch between: {come_along}");
}

fn flows_and_packets_can_be_chosen() {
    let browser = opened(1400, 1000);
    let choose = |which: &str, value: &str| {
        browser.run(&format!(
            "const s = document.getElementById('{which}'); s.value = '{value}'; s.dispatchEvent(new Event('change'))"
        ));
        count(&browser)
    };
    assert_eq!(choose("packet", "2"), "1 of 17");
    stands_at(&browser, "pod/default/tea-1");
    assert_eq!(choose("flow", "1"), "1 of 7");
    let offered = browser.text("document.getElementById('packet').textContent");
    assert_eq!(offered, "All packetsPacket 3, there: data, 5 bytes");
    assert_eq!(choose("flow", ""), "1 of 55");
}

fn packets_that_went_the_way_of_another_come_when_they_are_asked_for() {
    let browser = Browser::new(1400, 1000);
    let (lab, mut trace) = tea();
    let mut same = trace.flows[0].packets[0].clone();
    same.number = 99;
    trace.flows[0].packets.push(same);
    browser.open(&html(&lab.lab, &lab.plan, Some(&trace)));
    assert_eq!(count(&browser), "1 of 55");
    let offered = browser.text("document.getElementById('packet').textContent");
    assert!(offered.starts_with("3 of 4 packets: the others went the same waysAll packetsPacket 1"), "{offered}");
    browser.run("const s = document.getElementById('packet'); s.value = ''; s.dispatchEvent(new Event('change'))");
    let all = 55 + trace.flows[0].packets[0].steps.len();
    assert_eq!(count(&browser), format!("1 of {all}"));
}

fn steps_are_folded_but_for_the_packet_that_is_shown() {
    let browser = opened(1400, 1000);
    let shown = || {
        browser.run("return [...document.querySelectorAll('#steps li')].map((li) => li.className === 'head' ? 'head' : li.offsetParent ? 'step' : '').join('')")
    };
    let heads = |steps: [usize; 3]| format!("head{}", steps.map(|n| "step".repeat(n)).join("head"));
    let (_, trace) = tea();
    let all: Vec<usize> = trace.flows.iter().flat_map(|f| &f.packets).map(|p| p.steps.len()).collect();
    assert_eq!(shown(), heads([all[0], 0, 0]));
    // What is shown is unfolded, and a heading folds and unfolds by hand.
    browser.click("#steps li.head:nth-of-type(1) button");
    assert_eq!(shown(), heads([0, 0, 0]));
    browser.keys("body", "\u{e010}");
    assert_eq!(shown(), heads([0, 0, all[2]]));
}

fn a_comment_that_means_harm_does_none() {
    let browser = opened(1400, 1000);
    browser.keys("body", "\u{e010}");
    let told = step(&browser);
    assert!(
        told.contains("--comment \"</script><script>document.title='broken'</script><img src=x onerror=alert(1)>\""),
        "{told}"
    );
    assert_eq!(browser.text("document.title"), "Lab tea");
    assert_eq!(
        browser.run("return document.querySelectorAll('img, body b, body i, script').length"),
        2,
        "the page's own scripts"
    );
    // A script that came into the page all the same would not be run.
    browser.run("const s = document.createElement('script'); s.textContent = 'document.title = \"broken\"'; document.body.append(s)");
    assert_eq!(browser.text("document.title"), "Lab tea");
    assert!(browser.complaints().iter().any(|c| c.contains("Content Security Policy")));
}

fn it_works_on_a_phone() {
    let browser = opened(360, 740);
    assert_eq!(browser.run("return [innerWidth, document.documentElement.scrollWidth]"), serde_json::json!([360, 360]));
    for _ in 0..6 {
        browser.click("#next");
    }
    stands_at(&browser, "host/node1#eth0");
    let seen = "const m = document.querySelector('#marker circle').getBoundingClientRect();
        const v = document.getElementById('view').getBoundingClientRect();
        const s = document.getElementById('step').getBoundingClientRect();
        return [m.x > v.x && m.right < v.right && m.y > v.y && m.bottom < v.bottom, v.y >= 0, s.y < innerHeight && s.y > v.bottom]";
    until("packet, picture and text are all in sight", || browser.run(seen) == serde_json::json!([true, true, true]));
    let small = browser.run(
        "return [...document.querySelectorAll('button, select, input')].filter((b) => b.offsetParent && !b.closest('#steps'))
            .filter((b) => b.offsetHeight < 28 || b.offsetWidth < 28).map((b) => b.id)",
    );
    assert_eq!(small, serde_json::json!([]), "a finger does not hit these");
}

fn everything_has_a_role_and_a_name() {
    let browser = opened(1400, 1000);
    for (selector, role, name) in [
        ("#first", "button", "First step"),
        ("#previous", "button", "Previous step"),
        ("#play", "button", "Play"),
        ("#next", "button", "Next step"),
        ("#slider", "slider", "Step"),
        ("#flow", "combobox", "Flow"),
        ("#packet", "combobox", "Packet"),
        ("#smaller", "button", "Smaller"),
        ("#steps li:nth-child(2) button", "button", "1client/laptop: a program sends SYN to 192.168.1.11:30080"),
        ("#list", "navigation", "All steps"),
        ("#step", "article", "This step"),
    ] {
        let (is, called) = browser.announced(selector);
        assert_eq!((is.as_str(), called.replace(' ', "")), (role, name.replace(' ', "")), "{selector}");
    }
    assert_eq!(browser.text("document.getElementById('step').ariaLive"), "polite");
    let focus = "document.getElementById('next').focus(); return document.activeElement.id";
    assert_eq!(browser.run(focus), "next");
    let words = browser.text("document.querySelector('.list').textContent");
    assert!(words.contains("host/node1") && words.contains("flannel.1 (vxlan)") && words.contains("tea-1"), "{words}");
}

fn who_wants_no_motion_gets_none() {
    let browser = opened(1400, 1000);
    let at_once = "document.getElementById('next').click(); document.getElementById('next').click();
        return document.getElementById('marker').dataset.at ?? 'on its way'";
    browser.click("#next");
    stands_at(&browser, "client/laptop#eth0");
    browser.click("#first");
    stands_at(&browser, "client/laptop");
    assert_eq!(
        browser.run(at_once.split_inclusive(';').next_back().map(|_| at_once).unwrap_or_default()),
        "on its way"
    );
    browser.prefer("prefers-reduced-motion", "reduce");
    browser.click("#first");
    assert_eq!(browser.run(at_once), "client/laptop#eth0");
}

fn it_is_dark_where_that_is_preferred() {
    let browser = opened(1400, 1000);
    let ground = || browser.text("getComputedStyle(document.body).backgroundColor");
    browser.prefer("prefers-color-scheme", "light");
    assert_eq!(ground(), "rgb(255, 255, 255)");
    browser.prefer("prefers-color-scheme", "dark");
    assert_eq!(ground(), "rgb(20, 24, 31)");
}

fn a_pod_among_many_is_found_in_the_box_of_all() {
    let lab = crowd("vxlan");
    let browser = Browser::new(1400, 1000);
    browser.open(&html(&lab.lab, &lab.plan, None));
    let pod = &lab.lab.pods[12];
    let seen = browser.text(&format!("drawn('{}', 'eth0')", pod.ns().path()));
    let owner = pod.owner.as_deref().expect("a deployment's pod");
    assert_eq!(seen, format!("pods/{}/default/{owner}#eth0", pod.host));
}
