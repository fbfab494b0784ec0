"""What is sent: the mail as it arrives."""

import base64

import msgspec
import pytest
from mail_server import Job, mailer_for, parsed, smtp_server

from jobyard.domain.lifecycle import Fail
from jobyard.handlers.email import Email


async def test_a_payload_with_only_to_is_sent_with_a_subject_an_empty_text_and_a_date(mailer, inbox):
    job = Job()
    result = await mailer.send(parsed('{"to": "user@example.com"}'), job)
    (mail,) = inbox.mails
    assert (mail.sender, mail.recipients) == ("jobs@yard.example", ["user@example.com"])
    assert mail.message["Subject"] == "(no subject)"
    assert mail.message["From"] == "Jobyard <jobs@yard.example>"
    assert mail.message["To"] == "user@example.com"
    assert mail.message["Date"].datetime.tzinfo is not None
    assert mail.message.get_content().strip() == ""
    message_id = f"<{job.job_id}@yard.example>"
    assert result == {"messageId": message_id, "accepted": ["user@example.com"], "refused": {}}


async def test_every_attempt_of_a_job_carries_the_same_message_id(mailer, inbox):
    job = Job()
    for _ in range(2):
        await mailer.send(Email(to="a@example.com", sender="Shop <mail@shop.example>"), job)
    assert [mail.message["Message-ID"] for mail in inbox.mails] == [f"<{job.job_id}@shop.example>"] * 2


async def test_unicode_and_attachments_arrive_intact(mailer, inbox):
    picture = bytes(range(256)) * 40
    mail = {
        "to": ["Zoë, Ann <zoe@example.com>", '"O\\"Hara (Jo)" <jo@example.com>'],
        "from": "Büro <buero@example.com>",
        "replyTo": "Antwort <answer@example.com>",
        "subject": "Grüße: 日本語のテスト 🎉 " + "ein langer Betreff " * 10,
        "text": "Zeile 1\n.\n..Punkte\nFrom hier\n" + "ü" * 2000 + "\n",
        "attachments": [
            {"filename": "Übersicht 2026.png", "contentType": "image/png", "content": base64.b64encode(picture).decode()},
            {"filename": "notes.csv", "contentType": "text/csv; charset=utf-8", "content": base64.encodebytes("ä;ö\r\n".encode()).decode()},
            {"filename": "raw", "content": ""},
        ],
    }  # fmt: skip
    await mailer.send(msgspec.convert(mail, Email), Job())
    message = inbox.mails[0].message
    assert message["Subject"] == mail["subject"].strip()
    people = [(person.display_name, person.addr_spec) for person in message["To"].addresses]
    assert people == [("Zoë, Ann", "zoe@example.com"), ('O"Hara (Jo)', "jo@example.com")]
    assert message["From"].addresses[0].display_name == "Büro"
    assert message["Reply-To"] == "Antwort <answer@example.com>"
    assert message.get_body().get_content().replace("\r\n", "\n") == mail["text"]
    files = list(message.iter_attachments())
    assert [file.get_filename() for file in files] == ["Übersicht 2026.png", "notes.csv", "raw"]
    assert [file.get_content_type() for file in files] == [
        "image/png",
        "text/csv",
        "application/octet-stream",
    ]
    assert files[0].get_content() == picture
    assert files[1].get_payload(decode=True) == "ä;ö\r\n".encode()
    assert files[1].get_param("charset") == "utf-8"
    assert inbox.mails[0].content.isascii()


async def test_text_and_html_are_two_forms_of_one_mail(mailer, inbox):
    await mailer.send(Email(to="a@example.com", text="plain ü", html="<p>rich ü</p>"), Job())
    message = inbox.mails[0].message
    assert message.get_content_type() == "multipart/alternative"
    kinds = [(part.get_content_type(), part.get_content().strip()) for part in message.iter_parts()]
    assert kinds == [("text/plain", "plain ü"), ("text/html", "<p>rich ü</p>")]
    assert inbox.mails[0].content.isascii()


async def test_html_alone_is_sent_as_html(mailer, inbox):
    await mailer.send(Email(to="a@example.com", html="<p>only</p>"), Job())
    message = inbox.mails[0].message
    assert (message.get_content_type(), message.get_content().strip()) == ("text/html", "<p>only</p>")


async def test_bcc_is_delivered_and_not_shown_and_nobody_is_named_twice(mailer, inbox):
    mail = Email(to="a@example.com", cc=["b@example.com", "a@example.com"], bcc="hidden@example.com")
    result = await mailer.send(mail, Job())
    (received,) = inbox.mails
    assert received.recipients == ["a@example.com", "b@example.com", "hidden@example.com"]
    assert result["accepted"] == received.recipients
    assert received.message["Cc"] == "b@example.com, a@example.com"
    assert b"hidden" not in received.content
    assert "Bcc" not in received.message


async def test_own_headers_are_sent_and_a_long_link_stays_one_word(mailer, inbox):
    link = f"<https://example.com/leave?token={'x' * 300}>"
    headers = {"List-Unsubscribe": link, "X-Campaign": "Frühling"}
    await mailer.send(Email(to="a@example.com", headers=headers), Job())
    assert f"List-Unsubscribe: {link}\r\n".encode() in inbox.mails[0].content
    assert inbox.mails[0].message["X-Campaign"] == "Frühling"


async def test_a_domain_in_any_script_is_sent_in_its_ascii_form(mailer, inbox):
    await mailer.send(Email(to="zoe@bücher.example", sender="x@straße.example"), Job())
    (mail,) = inbox.mails
    assert mail.recipients == ["zoe@xn--bcher-kva.example"]
    assert mail.sender == "x@xn--strae-oqa.example"
    assert mail.message["Message-ID"].endswith("@xn--strae-oqa.example>")


@pytest.mark.parametrize("place", ["to", "bcc"])
async def test_letters_beyond_ascii_before_the_at_use_smtputf8(mailer, inbox, place):
    mail = {"to": "a@example.com", "subject": "für dich"} | {place: "用户@example.com"}
    await mailer.send(msgspec.convert(mail, Email), Job())
    (received,) = inbox.mails
    assert received.recipients[-1] == "用户@example.com"
    assert "SMTPUTF8" in received.options
    assert received.message["Subject"] == "für dich"


async def test_a_server_without_smtputf8_ends_such_a_mail_and_says_so(inbox):
    with smtp_server(inbox, enable_SMTPUTF8=False) as port:
        async with mailer_for(f"smtp://127.0.0.1:{port}") as mailer:
            ended = await mailer.send(Email(to="用户@example.com"), Job())
    assert isinstance(ended, Fail)
    assert "SMTPUTF8" in ended.message
    assert inbox.mails == []
