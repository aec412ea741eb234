"""Common first names of English, by whom they are mostly given to: for the report of what a selection does to groups.

A name says how a name is usually read, and nothing about a person. Names that are words as well (Mark, Rose, Will) or
that both sexes have are left out; names of other languages come with a list of their own (`recipe.names`).
Source: the most frequent of the US Census of 1990, and of births from 2000 to 2019 (Social Security Administration).
"""

from __future__ import annotations

from collections.abc import Mapping

_WOMEN = """Abigail Addison Alexis Alice Alyssa Amanda Amelia Amy Ana Andrea Angela Ann Anna Anne Annie Ashley Aubrey
Audrey Ava Barbara Becky Beth Betty Beverly Bonnie Brenda Brianna Carla Carol Carolyn Carrie Catherine
Charlotte Cheryl Chloe Christina Christine Claire Cynthia Deborah Debra Denise Diana Diane Donna Doris Dorothy
Elena Elizabeth Ella Ellen Emily Emma Eva Evelyn Frances Gabriella Gianna Gloria Hannah Harper Heather Helen
Irene Isabella Jacqueline Jane Janet Janice Jasmine Jenna Jennifer Jenny Jessica Jill Joan Joyce Judith Judy
Julia Julie Karen Kate Katherine Kathleen Kathryn Kathy Katie Kayla Kimberly Kylie Laura Lauren Leah Lena
Lillian Linda Lisa Lois Lori Louise Lucy Madeline Madison Margaret Maria Marie Marilyn Martha Mary Megan
Melissa Mia Michelle Mildred Molly Monica Nancy Natalie Nicole Nina Norma Olivia Pamela Patricia Paula Phyllis
Rachel Rebecca Ruth Sally Samantha Sandra Sara Sarah Sharon Shirley Sofia Sophia Stephanie Susan Sydney Tammy
Tanya Tara Teresa Theresa Tina Valerie Veronica Victoria Wanda Wendy Zoe"""
_MEN = """Aaron Adam Aidan Alan Albert Alexander Andrew Andy Anthony Antonio Arthur Austin Ben Benjamin Billy Bob Bobby
Brandon Brian Bruce Caleb Carl Carlos Charles Charlie Christian Christopher Clarence Connor Craig Dan Daniel
Danny Dave David Dennis Donald Douglas Dylan Ed Edward Eric Ernest Ethan Eugene Evan Fred Gabriel Gary George
Gerald Greg Gregory Harold Harry Henry Howard Isaac Isaiah Jack Jackson Jacob Jake James Jason Jayden Jeff
Jeffrey Jeremy Jerry Jesse Jim Jimmy Joe John Johnny Jonathan Jose Joseph Josh Joshua Juan Julian Justin Keith
Kenneth Kevin Kyle Larry Lawrence Leo Liam Louis Lucas Luis Luke Martin Mason Matt Matthew Max Michael Mike
Nathan Nicholas Noah Oliver Owen Patrick Paul Peter Phil Philip Phillip Ralph Randy Raymond Richard Rob Robert
Roger Ronald Roy Russell Ryan Sam Samuel Scott Sean Sebastian Simon Stephen Steve Steven Ted Thomas Tim
Timothy Toby Todd Tom Tommy Tony Tyler Victor Walter Wayne William Wyatt Zachary"""

COMMON: Mapping[str, tuple[str, ...]] = {
    "mostly women's": tuple(_WOMEN.split()),
    "mostly men's": tuple(_MEN.split()),
}
"""Group -> names."""
